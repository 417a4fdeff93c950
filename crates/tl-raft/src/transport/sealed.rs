//! Reading a hello or an answer off a connection.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::hello::{Decoded, Malformed, SEAL_BYTES, SEALED_BYTES_MAX};

/// Why there is none.
#[derive(Debug)]
pub(super) enum SealedError {
    Io(io::Error),
    /// The connection ended before.
    End,
    Malformed(Malformed),
}

/// Reads until `decode` finds something; what was read past it stays in the buffer.
pub(super) async fn read_sealed<T>(
    read: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
    decode: fn(&[u8]) -> Decoded<T>,
) -> Result<T, SealedError> {
    loop {
        if let Some((found, length)) = decode(buffer).map_err(SealedError::Malformed)? {
            buffer.drain(..length);
            return Ok(found);
        }
        // What is longer has been found malformed, so there is always room for some more.
        let mut chunk = [0; SEAL_BYTES + SEALED_BYTES_MAX];
        let room = chunk.len() - buffer.len();
        let count = read.read(&mut chunk[..room]).await.map_err(SealedError::Io)?;
        if count == 0 {
            return Err(SealedError::End);
        }
        buffer.extend_from_slice(&chunk[..count]);
    }
}
