//! The pieces of a body as they arrive, and the whole body at the end. Most bodies arrive in one piece, which is not copied.
//! A large body gets memory pages of its own, which go back to the system as soon as it is dropped.

use bytes::Bytes;
use memmap2::MmapMut;

/// Larger bodies get pages of their own.
pub(super) const SMALL: usize = 64 * 1024;
/// The least that memory for a small body grows by.
const LEAST_GROWTH: usize = 4096;

pub(super) struct Pieces {
    /// The most bytes that may arrive.
    most: usize,
    first: Bytes,
    rest: Vec<u8>,
    pages: Option<MmapMut>,
    /// How much of the pages is filled.
    filled: usize,
}

/// Why a piece was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceError {
    /// More arrived than may.
    TooMuch,
    /// The system gives no memory.
    NoMemory,
}

impl Pieces {
    pub(super) fn new(most: usize) -> Self {
        Self { most, first: Bytes::new(), rest: Vec::new(), pages: None, filled: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len() + self.filled
    }

    pub(super) fn push(&mut self, data: Bytes) -> Result<(), PieceError> {
        if self.len() + data.len() > self.most {
            return Err(PieceError::TooMuch);
        }
        if let Some(pages) = &mut self.pages {
            pages[self.filled..self.filled + data.len()].copy_from_slice(&data);
            self.filled += data.len();
            return Ok(());
        }
        if self.len() == 0 && data.len() <= SMALL {
            self.first = data;
            return Ok(());
        }
        if self.len() + data.len() > SMALL {
            self.pages = Some(pages(self.most).map_err(|_| PieceError::NoMemory)?);
            for piece in [std::mem::take(&mut self.first), std::mem::take(&mut self.rest).into(), data] {
                self.push(piece)?;
            }
            return Ok(());
        }
        // The memory grows by little more than what arrived, because only what arrived is counted as room.
        let first = std::mem::take(&mut self.first);
        self.rest.reserve_exact((first.len() + data.len()).max(LEAST_GROWTH));
        self.rest.extend_from_slice(&first);
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    pub(super) fn into_bytes(self) -> Bytes {
        match self.pages {
            Some(pages) => Bytes::from_owner(pages).slice(..self.filled),
            None if self.rest.is_empty() => self.first,
            None => self.rest.into(),
        }
    }
}

/// Pages that take memory as they are written to, one small page after another.
fn pages(length: usize) -> std::io::Result<MmapMut> {
    let pages = MmapMut::map_anon(length)?;
    // Without this advice the first byte may cost 2 MiB. Kernels without huge pages reject the advice, harmlessly.
    #[cfg(target_os = "linux")]
    pages.advise(memmap2::Advice::NoHugePage).ok();
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_the_same_whatever_the_pieces_it_comes_in() {
        for length in [0, 1, 2_048, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL, 300_000] {
            let body: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            for size in [1, 7, 4_096, SMALL - 1, SMALL, SMALL + 1, 1 << 20] {
                let mut pieces = Pieces::new(length);
                for piece in body.chunks(size) {
                    assert!(pieces.push(Bytes::copy_from_slice(piece)).is_ok());
                }
                assert_eq!(pieces.len(), length);
                let one_more = pieces.push(Bytes::from_static(b"x"));
                assert_eq!(one_more, Err(PieceError::TooMuch), "more than was announced");
                assert!(pieces.into_bytes() == body, "{length} bytes in pieces of {size}");
            }
        }
    }
}
