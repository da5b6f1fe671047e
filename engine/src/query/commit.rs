//! The end of a step: what it gives is committed, sent and noted, or why it failed is told.

use std::sync::atomic::Ordering;

use millpond_types::ErrorKind;
use millpond_types::ports::{Cursor, Outcome, Step};

use super::client::{ClientEvent, EndReason};
use super::half_done::HalfDone;
use super::{Attempt, FIRST_STEP_ROWS, Query, Sinks, StepOutcome};
use crate::ops::{Failure, Notes};
use crate::processing_log::{Line, LineKind};
use crate::sink::ResultRows;
use crate::source::{Input, Origin};
use crate::state::points::Points;

impl Query {
    pub(super) fn commit(&mut self, input: &Input, rows: usize, attempt: Attempt) -> StepOutcome {
        let cursors = self.reader.cursors_after(&self.id, input, rows);
        let origins: Vec<Option<Origin>> =
            attempt.notes.lines().iter().map(|(pos, ..)| self.reader.origin(input, *pos as usize)).collect();
        let half = (!attempt.pending.is_empty()).then(|| HalfDone {
            cursors: cursors.iter().map(|c| (c.source, c.offset)).collect(),
            headers: input.headers(rows - 1).to_vec(),
            name: self.reader.name(input, rows - 1),
            pending: attempt.pending.clone(),
        });
        self.write(attempt, rows as u64, cursors, half, &|i| origins.get(i).cloned().flatten())
    }

    /// Commits an attempt. While a row is half done, its cursor stays in the half-done entry.
    pub(super) fn write(
        &mut self,
        attempt: Attempt,
        rows: u64,
        cursors: Vec<Cursor>,
        half: Option<HalfDone>,
        origin: &dyn Fn(usize) -> Option<Origin>,
    ) -> StepOutcome {
        let Attempt { changes, appends, client, notes, rows_out, .. } = attempt;
        let (half, cursors) = match half {
            // All is emitted now: the cursors move.
            Some(half) if half.pending.is_empty() => {
                let cursors = half.cursors.iter().map(|(source, offset)| Cursor {
                    query: self.id.clone(),
                    source: *source,
                    offset: *offset,
                });
                (None, cursors.collect())
            }
            Some(half) if rows > 0 => {
                // Only the last row is half done; those before it are not.
                (Some(half), Vec::new())
            }
            other => (other, cursors),
        };
        if let Some(state) = &mut self.transient {
            if let Err(e) = state.apply(changes, self.settings.transient_bytes_max) {
                return self.fail(Failure::from(e), None);
            }
        } else {
            let mut state = changes.writes;
            match (&half, &self.half_done) {
                (Some(half), _) => state.push(&self.half_done_key, Some(&half.encode())),
                (None, Some(_)) => state.push(&self.half_done_key, None),
                (None, None) => {}
            }
            let step = Step {
                generation: self.storage.assignment().generation,
                appends,
                cursors: cursors.clone(),
                state,
                drop_state: changes.drops,
                ..Step::default()
            };
            let ticket = self.storage.commit(step);
            // Under lag there is something to do meanwhile.
            if self.reads_ahead && rows >= FIRST_STEP_ROWS as u64 {
                let bytes_max = self.settings.step_bytes_max;
                self.reader.read_ahead(self.storage.as_ref(), self.rows_target, bytes_max, &cursors);
            }
            match ticket.wait() {
                Outcome::Committed { .. } => {}
                Outcome::Retry(why) => return StepOutcome::Stalled(why),
                Outcome::Fenced => {
                    return StepOutcome::Failed {
                        why: "another process works on this query now".into(),
                        place: String::new(),
                    };
                }
                Outcome::Fatal(why) => return StepOutcome::Failed { why, place: String::new() },
            }
        }
        self.points.iter_mut().for_each(Points::commit);
        self.reader.advance(&cursors);
        self.half_done = half;
        self.metrics.rows_in.fetch_add(rows, Ordering::Relaxed);
        self.metrics.rows_out.fetch_add(rows_out, Ordering::Relaxed);
        self.metrics.steps.fetch_add(1, Ordering::Relaxed);
        self.note(notes, origin);
        match client {
            Some(rows) => self.send(rows),
            None => StepOutcome::Progress { rows },
        }
    }

    /// Hands rows to the client. There is room, as nobody else sends.
    fn send(&mut self, rows: ResultRows) -> StepOutcome {
        let Sinks::Client { sender, left } = &mut self.sinks else { return StepOutcome::Ended };
        let mut rows = rows;
        if let Some(left) = left {
            rows = rows.truncated(usize::try_from(*left).unwrap_or(usize::MAX));
            *left -= rows.len() as u64;
        }
        let count = rows.len() as u64;
        let rows = rows.counted(&self.memory.push_queries);
        if !rows.is_empty() && sender.sender.try_send(ClientEvent::Rows(rows)).is_err() {
            return StepOutcome::Ended;
        }
        if *left == Some(0) {
            // A failed send means that the client is gone, which ends the query as well.
            let _ = sender.sender.try_send(ClientEvent::End(EndReason::LimitReached));
            return StepOutcome::Ended;
        }
        StepOutcome::Progress { rows: count }
    }

    fn note(&self, notes: Notes, origin: &dyn Fn(usize) -> Option<Origin>) {
        self.metrics.rows_late.fetch_add(notes.late, Ordering::Relaxed);
        self.metrics.rows_skipped.fetch_add(notes.skipped, Ordering::Relaxed);
        let errors = notes.lines().iter().filter(|(_, kind, _)| *kind == LineKind::Expression).count() as u64;
        self.metrics.row_errors.fetch_add(errors + notes.more, Ordering::Relaxed);
        for (i, (_, kind, message)) in notes.lines().iter().enumerate() {
            let (topic, partition, offset) =
                origin(i).map_or((String::new(), -1, -1), |o| (o.topic.to_string(), o.partition, o.offset));
            self.log.write(Line {
                query: self.id.clone(),
                kind: *kind,
                message: message.clone(),
                topic,
                partition,
                offset,
            });
        }
        self.log.count_more(&self.id, notes.more);
    }

    pub(super) fn fail(&mut self, failure: Failure, origin: Option<Origin>) -> StepOutcome {
        if failure.error.kind() == ErrorKind::Retry {
            return StepOutcome::Stalled(failure.error.to_string());
        }
        let why = failure.error.to_string();
        let (topic, partition, offset) =
            origin.map_or((String::new(), -1, -1), |o| (o.topic.to_string(), o.partition, o.offset));
        let place = if topic.is_empty() {
            String::new()
        } else {
            format!("topic \"{topic}\", partition {partition}, offset {offset}")
        };
        self.log.write(Line {
            query: self.id.clone(),
            kind: LineKind::Fatal,
            message: why.clone(),
            topic,
            partition,
            offset,
        });
        if let Sinks::Client { sender, .. } = &self.sinks {
            // A client that is gone needs no reason.
            let _ = sender.sender.try_send(ClientEvent::End(EndReason::Failed(why.clone())));
        }
        StepOutcome::Failed { why, place }
    }

    /// Tells the client of a push query that there will be no more rows.
    pub fn end(&mut self) {
        if let Sinks::Client { sender, .. } = &self.sinks {
            // A client that is gone needs no end.
            let _ = sender.sender.try_send(ClientEvent::End(EndReason::Completed));
        }
    }
}
