//! What must hold for any bytes given to this crate's own decoders. Blocks and tables are read
//! by the library that wrote them, behind checksums that it verifies.

use bytes::Bytes;

use crate::applied::Applied;
use crate::tree::listed_files;

/// The row that says how far a group is applied.
///
/// # Panics
/// When it does not come back from its own encoding.
pub fn applied_row(bytes: &[u8]) {
    if let Some(applied) = Applied::decode(Bytes::copy_from_slice(bytes)) {
        assert_eq!(applied.encode(), bytes);
    }
}

/// The list of the files that a store consists of.
///
/// # Panics
/// When a list names more files than it has bytes for.
pub fn file_list(bytes: &[u8]) {
    /// Id, kind and checksum.
    const FILE_BYTES: usize = 8 + 1 + 16;
    if let Some(files) = listed_files(Bytes::copy_from_slice(bytes)) {
        assert!(files * FILE_BYTES <= 2 * bytes.len(), "{files} files in {} bytes", bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tl_types::{Generation, Index, Term};

    #[test]
    fn applied_rows_over_the_corpus() {
        let applied = Applied { index: Index(258), term: Term(3), generation: Generation(7) };
        let seeds =
            [("some", applied.encode().to_vec()), ("none", Applied::default().encode().to_vec())];
        tl_fuzz::check("applied_row", &seeds, applied_row);
    }

    /// An archive of the two sections that are read.
    fn archive(tables: &[u8], blobs: &[u8]) -> Vec<u8> {
        use std::io::Write;
        let mut writer = sfa::Writer::from_writer(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in [("tables", tables), ("blob_files", blobs)] {
            writer.start(name).expect("a section");
            writer.write_all(bytes).expect("its bytes");
        }
        writer.into_inner().expect("an archive").into_inner()
    }

    #[test]
    fn file_lists_over_the_corpus() {
        let file = [&[7_u8; 8][..], &[0], &[9; 16]].concat();
        let table = [&file[..], &[0; 8]].concat();
        let tables = [&[1, 1, 2, 0, 0, 0][..], &table, &table].concat();
        let blobs = [&[1, 0, 0, 0][..], &file].concat();
        let seeds = [("files", archive(&tables, &blobs)), ("none", archive(&[0], &[0, 0, 0, 0]))];
        tl_fuzz::check("file_list", &seeds, file_list);
    }
}
