//! The chain: 32 bytes that identify a journal's prefix at every record (PROTOCOL.md section 6).

/// The chain after some records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chain([u8; 32]);

impl Chain {
    /// Goes on over one whole record, its length prefix included, that lies in these parts.
    pub fn push<'a>(&mut self, record: impl IntoIterator<Item = &'a [u8]>) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.0);
        for part in record {
            hasher.update(part);
        }
        self.0 = *hasher.finalize().as_bytes();
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl From<[u8; 32]> for Chain {
    /// A chain that was written down.
    fn from(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}
