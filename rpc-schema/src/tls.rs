//! Whom a client over TLS takes for the daemon: who has a certificate that it was given, or one that such a certificate vouches for.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use jsonrpsee::http_client::CustomCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::BuilderVerifierExt;

use crate::CallError;

/// Trust in whom the authorities of this machine vouch for.
pub(crate) fn trusting_as_this_machine() -> Result<CustomCertStore, CallError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = CustomCertStore::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(versions.map_err(unfit)?.with_platform_verifier().with_no_client_auth())
}

/// Trust in these certificates, PEM: in each as the daemon's own, whatever name it is reached by, and as an authority.
pub(crate) fn trusting(pem: &str) -> Result<CustomCertStore, CallError> {
    store(certificates(pem)?)
}

/// Trust in the first of these certificates, PEM, as the daemon's own.
pub(crate) fn trusting_first(pem: &str) -> Result<CustomCertStore, CallError> {
    let mut own = certificates(pem)?;
    own.truncate(1);
    store(own)
}

fn unfit(problem: impl fmt::Display) -> CallError {
    CallError::Untrusted(format!("the certificate that is to be trusted cannot be used: {problem}"))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, CallError> {
    let own: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let own = own.map_err(|fault| unfit(format!("it cannot be read as PEM: {fault}")))?;
    if own.is_empty() {
        return Err(unfit("there is none in its file, which must have -----BEGIN CERTIFICATE----- (PEM)"));
    }
    Ok(own)
}

fn store(own: Vec<CertificateDer<'static>>) -> Result<CustomCertStore, CallError> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(own.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let by_authority =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().map_err(unfit)?;
    let store = CustomCertStore::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trust { own, by_authority }))
        .with_no_client_auth();
    Ok(store)
}

#[derive(Debug)]
struct Trust {
    own: Vec<CertificateDer<'static>>,
    by_authority: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Trust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // Whoever has the key of exactly this one is meant: names and dates say nothing more.
        if self.own.iter().any(|own| own == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.by_authority.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_authority.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_authority.supported_verify_schemes()
    }
}

/// Why no daemon was taken for ours, and what to do, where that is why a call failed.
pub(crate) fn refusal(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut layer = Some(error);
    while let Some(error) = layer {
        if let Some(fault) = fault(error) {
            return Some(words(fault));
        }
        layer = error.source();
    }
    None
}

/// The fault of TLS that this error is, or that it was made of: an error of input and output does not give it as its source.
fn fault<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Error> {
    let mut error = error;
    while let Some(wrapped) = error.downcast_ref::<io::Error>() {
        error = wrapped.get_ref()?;
    }
    error.downcast_ref()
}

fn words(fault: &Error) -> String {
    let invalid = match fault {
        Error::InvalidCertificate(invalid) => invalid,
        Error::InvalidMessage(_) => {
            return format!(
                "no TLS is spoken at this address ({fault}). Look whether it is the daemon's rpc.address, and whether the daemon has \
                 rpc.tls_cert and rpc.tls_key"
            );
        }
        fault => return format!("TLS was not agreed on: {fault}"),
    };
    match invalid {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the daemon's certificate has expired. Have it renewed there: the daemon takes up a new one in the file of rpc.tls_cert by \
             itself. Or the clock of this machine is wrong"
                .to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the daemon's certificate is not valid yet. Look at the clock of this machine, and at that of the one that made it".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => format!(
            "the daemon's certificate is for another name ({invalid}). Use one of its names in the address, or have one made for this \
             name; or trust that very certificate, if you know that it is the daemon's"
        ),
        CertificateError::UnknownIssuer => "nobody that is trusted here vouches for the daemon's certificate. Either this is not the \
             daemon, or you must name the authority that signed its certificate, or that certificate itself, as PEM (--ca of \
             outrigger-cli)"
            .to_owned(),
        invalid => format!("the daemon's certificate cannot be trusted: {invalid}. Have another one made"),
    }
}
