//! The first message each way (BOLT 1, "The `init` Message").

use outrigger_bolt::features::FeatureError;
use outrigger_bolt::wire::{DecodeError, EncodeError, Init, Message};
use tokio::time::timeout;

use super::INIT_TIMEOUT;
use super::frame::{FrameFault, FrameReader, FrameWriter};

/// Why the `init` of a peer does not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InitFault {
    #[error("no init within {} s", INIT_TIMEOUT.as_secs())]
    Timeout,
    #[error("instead of sending init the peer's connection ended: {0}")]
    Frame(#[from] FrameFault),
    #[error("the peer says: {0}")]
    PeerRefuses(String),
    #[error("the first message is not init but {0}")]
    NotInit(String),
    #[error("init cannot be read: {0}")]
    Malformed(DecodeError),
    #[error(transparent)]
    Features(#[from] FeatureError),
    #[error("the peer is on none of our chains")]
    NoCommonChain,
    #[error("our init cannot be sent: {0}")]
    Ours(#[from] EncodeError),
}

impl InitFault {
    pub(super) fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout)
    }

    /// What the peer is told before the connection is dropped, where it is told anything.
    pub(super) fn warning(&self) -> Option<String> {
        match self {
            Self::Timeout | Self::Frame(_) | Self::PeerRefuses(_) | Self::Features(_) | Self::Ours(_) => None,
            Self::NotInit(_) => Some("init must be the first message".to_owned()),
            Self::Malformed(error) => Some(format!("init cannot be read: {error}")),
            Self::NoCommonChain => Some("we are on none of your chains".to_owned()),
        }
    }
}

/// Sends our `init` and gives the peer's, which we accept.
pub(super) async fn exchange(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    ours: &Init,
) -> Result<Init, InitFault> {
    let theirs = async {
        send(writer, ours).await?;
        read(reader).await
    };
    let theirs = timeout(INIT_TIMEOUT, theirs).await.map_err(|_| InitFault::Timeout)??;
    check(ours, &theirs)?;
    Ok(theirs)
}

async fn send(writer: &mut FrameWriter, ours: &Init) -> Result<(), InitFault> {
    writer.push(&Message::Init(ours.clone()).encode()?)?;
    Ok(writer.flush().await?)
}

async fn read(reader: &mut FrameReader) -> Result<Init, InitFault> {
    let frame = reader.next().await?;
    match Message::decode(&frame) {
        Ok(Message::Init(init)) => Ok(init),
        Ok(Message::Error(error)) => Err(InitFault::PeerRefuses(error.data.to_string())),
        Ok(Message::Warning(warning)) => Err(InitFault::PeerRefuses(warning.data.to_string())),
        Ok(other) => Err(InitFault::NotInit(other.name().to_owned())),
        Err(DecodeError::UnknownEvenType(number)) => Err(InitFault::NotInit(format!("of type {number}"))),
        Err(error) => Err(InitFault::Malformed(error)),
    }
}

/// Whether a connection with the sender of `theirs` makes sense (BOLT 1, "The `init` Message").
///
/// `remote_addr` is not looked at: it is whatever the peer likes to say.
fn check(ours: &Init, theirs: &Init) -> Result<(), InitFault> {
    theirs.combined_features().check(&ours.combined_features())?;
    match (&ours.networks, &theirs.networks) {
        (Some(ours), Some(theirs)) if !theirs.iter().any(|chain| ours.contains(chain)) => Err(InitFault::NoCommonChain),
        (Some(_) | None, Some(_) | None) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use bitcoin::Network;
    use bitcoin::constants::ChainHash;
    use outrigger_bolt::features::{Feature, Features};

    use super::*;

    fn init(features: Features, networks: Option<Vec<ChainHash>>) -> Init {
        Init { globalfeatures: Features::empty(), features, networks, remote_addr: None }
    }

    fn on(network: Network) -> Option<Vec<ChainHash>> {
        Some(vec![ChainHash::using_genesis_block_const(network)])
    }

    #[test]
    fn bits_of_both_maps_count() {
        let ours = init(Features::init(), on(Network::Regtest));
        let mut theirs = init(Features::empty(), None);
        assert_eq!(check(&ours, &theirs), Ok(()));
        theirs.globalfeatures = Features::empty().with_bit(100);
        assert_eq!(check(&ours, &theirs), Err(FeatureError::UnknownRequired(100).into()));
        theirs.globalfeatures = Features::empty().with_bit(101);
        assert_eq!(check(&ours, &theirs), Ok(()));
    }

    #[test]
    fn bad_input_11_missing_dependency() {
        let ours = init(Features::init(), None);
        let theirs = init(Features::empty().offer(Feature::ZEROCONF), None);
        let (feature, needs) = (Feature::ZEROCONF, Feature::SCID_ALIAS);
        assert_eq!(check(&ours, &theirs), Err(FeatureError::MissingDependency { feature, needs }.into()));
    }

    #[test]
    fn bad_input_12_one_common_chain_is_enough() {
        let ours = init(Features::init(), on(Network::Regtest));
        assert_eq!(check(&ours, &init(Features::init(), on(Network::Signet))), Err(InitFault::NoCommonChain));
        assert_eq!(check(&ours, &init(Features::init(), Some(Vec::new()))), Err(InitFault::NoCommonChain));
        let both = [Network::Signet, Network::Regtest].map(ChainHash::using_genesis_block_const);
        assert_eq!(check(&ours, &init(Features::init(), Some(both.to_vec()))), Ok(()));
    }
}
