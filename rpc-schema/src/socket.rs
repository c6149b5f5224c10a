//! A WebSocket to a daemon: one attempt at one place, so that what is shown there goes to nobody whom an answer names.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jsonrpsee::ws_client::{PingConfig, WsClient, WsClientBuilder};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::client::{Door, Trust};
use crate::{CallError, tls};

/// What a connection may take to be made, and an answer to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What one address of several may take of it.
const DIAL: Duration = Duration::from_secs(10);

impl Door {
    /// A connection on which both sides speak.
    pub(crate) async fn socket(&self) -> Result<WsClient, CallError> {
        self.socket_within(PATIENCE).await
    }

    async fn socket_within(&self, limit: Duration) -> Result<WsClient, CallError> {
        let late = |_| CallError::Unreachable("no connection came about in time".to_owned());
        tokio::time::timeout(limit, self.opened()).await.map_err(late)?
    }

    async fn opened(&self) -> Result<WsClient, CallError> {
        let builder = WsClientBuilder::default()
            .set_headers(self.headers())
            .connection_timeout(PATIENCE)
            .request_timeout(PATIENCE)
            .enable_ws_ping(PingConfig::new());
        let trusted = match &self.trust {
            Trust::Plain => None,
            Trust::Machine => Some(tls::trusting_as_this_machine()?),
            Trust::These(certificates) => Some(tls::trusting(certificates)?),
            Trust::Own(certificates) => Some(tls::trusting_first(certificates)?),
        };
        let (scheme, standard_port) = if trusted.is_some() { ("wss", 443) } else { ("ws", 80) };
        let url = format!("{scheme}://{}", self.address);
        let unfit = || CallError::Unreachable(format!("{:?} is not host:port", self.address));
        let (host, port) = host_and_port(&self.address, standard_port).ok_or_else(unfit)?;
        let stream = dialled(host, port).await.map_err(|fault| CallError::without_answer(&fault))?;
        let Some(trusted) = trusted else { return Ok(builder.build_with_stream(url, stream).await?) };
        let name = ServerName::try_from(host.to_owned()).map_err(|_| unfit())?;
        let stream = TlsConnector::from(Arc::new(trusted)).connect(name, stream).await;
        let stream = stream.map_err(|fault| CallError::without_answer(&fault))?;
        Ok(builder.build_with_stream(url, stream).await?)
    }
}

/// A connection to the first address of the host that takes one.
async fn dialled(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut fault = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(DIAL, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Ok(Err(refused)) => fault = refused,
            Err(_) => fault = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(fault)
}

/// The host as a certificate names it, an IPv6 address without its brackets, and the port of `address`, which may have a path behind.
fn host_and_port(address: &str, standard_port: u16) -> Option<(&str, u16)> {
    let authority = address.split(['/', '?', '#']).next()?;
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = if port.is_empty() { standard_port } else { port.strip_prefix(':')?.parse().ok()? };
    (!host.is_empty()).then_some((host, port))
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    type Done = Result<(), Box<dyn std::error::Error>>;

    /// Whoever takes the connection says nothing: neither to a hello of TLS nor to the head of a request.
    #[tokio::test]
    async fn a_connection_that_is_taken_and_never_answered_is_given_up_and_left() -> Done {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        for trust in [Trust::Plain, Trust::Machine] {
            let is_encrypted = matches!(trust, Trust::Machine);
            let door = Door::new(&address, "Bearer outr_0123456789", trust)?;
            let mute = async {
                let (mut stream, _) = listener.accept().await?;
                let mut heard = Vec::new();
                stream.read_to_end(&mut heard).await?;
                std::io::Result::Ok(heard)
            };
            let (opened, heard) = tokio::join!(door.socket_within(Duration::from_millis(500)), mute);
            assert!(matches!(&opened, Err(CallError::Unreachable(why)) if why.contains("in time")), "{opened:?}");
            let shows_token = String::from_utf8_lossy(&heard?).contains("outr_");
            assert!(!(is_encrypted && shows_token));
        }
        Ok(())
    }

    #[test]
    fn an_address_of_ip_6_loses_its_brackets_and_a_port_may_be_left_out() {
        for (address, expected) in [
            ("127.0.0.1:9737", Some(("127.0.0.1", 9737))),
            ("[::1]:9737", Some(("::1", 9737))),
            ("[::1]", Some(("::1", 443))),
            ("node.example", Some(("node.example", 443))),
            ("node.example:9737/behind/a:proxy", Some(("node.example", 9737))),
            ("::1", None),
            ("[::1", None),
            ("[::1]9737", None),
            ("node.example:", None),
            ("node.example:65536", None),
            (":9737", None),
            ("", None),
        ] {
            assert_eq!(host_and_port(address, 443), expected, "{address}");
        }
    }
}
