//! The decrypted rows of a dataset, in batches.

use asterism_learn::csv::{CsvError, CsvLimits, CsvReader, Row, RowSink};

use crate::{datasets::Opened, error::IngestError};

/// A batch is given away when it has this many bytes of cells.
const BATCH_BYTES: usize = 256 << 10;
/// Or this many rows.
const BATCH_ROWS: usize = 4096;

/// Some rows; the column names come in the first batch only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBatch {
    /// Names of the columns.
    pub columns: Vec<String>,
    /// Cells of each row.
    pub rows: Vec<Vec<String>>,
}

/// Reads rows from `offset` on (at most `limit`; `None` means all) into `send`. Each chunk is authenticated before any of
/// its rows is given.
///
/// # Errors
/// [`IngestError::DatasetDamaged`] naming the chunk; what `send` answers.
pub fn read_rows(
    mut opened: Opened,
    limits: CsvLimits,
    offset: u64,
    limit: Option<u64>,
    send: &mut dyn FnMut(RowBatch) -> Result<(), IngestError>,
) -> Result<(), IngestError> {
    let mut reader = CsvReader::new(limits);
    let end = limit.map_or(u64::MAX, |limit| offset.saturating_add(limit));
    let mut batcher = Batcher {
        offset,
        end,
        row: 0,
        batch: RowBatch::default(),
        bytes: 0,
        ended: None,
        send,
    };
    while let Some(chunk) = opened.next_chunk()? {
        let fed = reader.feed(chunk, &mut batcher);
        if batcher.settle(fed)? {
            return Ok(());
        }
    }
    let finished = reader.finish(&mut batcher);
    if !batcher.settle(finished)? {
        batcher.flush()?;
    }
    Ok(())
}

struct Batcher<'s> {
    offset: u64,
    end: u64,
    row: u64,
    batch: RowBatch,
    bytes: usize,
    /// Why reading was ended from this side.
    ended: Option<Result<(), IngestError>>,
    send: &'s mut dyn FnMut(RowBatch) -> Result<(), IngestError>,
}

/// What a sink answers when it has had enough: the reason lies in [`Batcher::ended`].
const ENOUGH: CsvError = CsvError::OutOfRoom { limit: 0 };

impl Batcher<'_> {
    /// Whether the last row that was asked for has been given.
    fn settle(&mut self, fed: Result<(), CsvError>) -> Result<bool, IngestError> {
        match (self.ended.take(), fed) {
            (Some(ended), _) => ended.map(|()| true),
            (None, fed) => Ok(fed.map(|()| false)?),
        }
    }

    fn flush(&mut self) -> Result<(), IngestError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if batch == RowBatch::default() {
            Ok(())
        } else {
            (self.send)(batch)
        }
    }

    fn end(&mut self, result: Result<(), IngestError>) -> Result<(), CsvError> {
        self.ended = Some(result);
        Err(ENOUGH)
    }
}

impl RowSink for Batcher<'_> {
    fn header(&mut self, names: &[String]) -> Result<(), CsvError> {
        self.batch.columns = names.to_vec();
        // The names travel alone, so that rows of any width find room in the next message.
        match self.flush() {
            Ok(()) => Ok(()),
            Err(error) => self.end(Err(error)),
        }
    }

    fn row(&mut self, row: &Row<'_>) -> Result<(), CsvError> {
        if self.row >= self.end {
            let flushed = self.flush();
            return self.end(flushed);
        }
        self.row += 1;
        if self.row <= self.offset {
            return Ok(());
        }
        let cells: Vec<String> = row
            .cells()
            .map(|cell| String::from_utf8_lossy(cell).into_owned())
            .collect();
        let bytes: usize = cells.iter().map(|cell| cell.len() + 4).sum();
        // A long row never shares its message with what came before.
        if self.bytes > 0
            && self.bytes + bytes > BATCH_BYTES
            && let Err(error) = self.flush()
        {
            return self.end(Err(error));
        }
        self.bytes += bytes;
        self.batch.rows.push(cells);
        if self.row == self.end || self.bytes >= BATCH_BYTES || self.batch.rows.len() >= BATCH_ROWS {
            let flushed = self.flush();
            if flushed.is_err() || self.row == self.end {
                return self.end(flushed);
            }
        }
        Ok(())
    }
}
