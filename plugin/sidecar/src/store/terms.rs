//! What the operator asks for forwarding over one channel, where that is not what the config says.

use outrigger_bolt::amount::Msat;

use super::record::{BadRecord, RecordReader, RecordWriter};

/// Each field that is there stands over the config's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TermsRow {
    /// Blocks between the expiry of the incoming and of the outgoing HTLC.
    pub cltv_expiry_delta: Option<u16>,
    /// Fee of each HTLC, in millisatoshi.
    pub fee_base_msat: Option<u32>,
    /// Fee for each million that is forwarded.
    pub fee_proportional_millionths: Option<u32>,
    /// Smallest HTLC that is forwarded.
    pub htlc_minimum: Option<Msat>,
    /// Largest HTLC that is forwarded; 0 for as much as the channel carries.
    pub htlc_maximum: Option<Msat>,
}

impl TermsRow {
    /// These, and in the place of what is missing the others.
    pub fn or(self, others: Self) -> Self {
        Self {
            cltv_expiry_delta: self.cltv_expiry_delta.or(others.cltv_expiry_delta),
            fee_base_msat: self.fee_base_msat.or(others.fee_base_msat),
            fee_proportional_millionths: self.fee_proportional_millionths.or(others.fee_proportional_millionths),
            htlc_minimum: self.htlc_minimum.or(others.htlc_minimum),
            htlc_maximum: self.htlc_maximum.or(others.htlc_maximum),
        }
    }

    /// The bytes of the row; none where all is as the config says.
    pub fn encode(&self) -> Option<Vec<u8>> {
        let row = RecordWriter::new(1)
            .put_some(0, self.cltv_expiry_delta.map(u16::to_be_bytes))
            .put_some(2, self.fee_base_msat.map(u32::to_be_bytes))
            .put_some(4, self.fee_proportional_millionths.map(u32::to_be_bytes))
            .put_some(6, self.htlc_minimum.map(|minimum| minimum.get().to_be_bytes()))
            .put_some(8, self.htlc_maximum.map(|maximum| maximum.get().to_be_bytes()));
        (*self != Self::default()).then(|| row.finish())
    }

    /// Reads a row.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadRecord> {
        let mut record = RecordReader::new(bytes, 1)?;
        let row = Self {
            cltv_expiry_delta: record.array_some(0, "expiry delta")?.map(u16::from_be_bytes),
            fee_base_msat: record.array_some(2, "base fee")?.map(u32::from_be_bytes),
            fee_proportional_millionths: record.array_some(4, "proportional fee")?.map(u32::from_be_bytes),
            htlc_minimum: record.u64_some(6, "minimum")?.map(Msat::new),
            htlc_maximum: record.u64_some(8, "maximum")?.map(Msat::new),
        };
        record.finish()?;
        Ok(row)
    }
}
