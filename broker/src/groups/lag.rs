//! How far groups are behind the logs that they read, for metrics.
//!
//! Not here: names of metrics and their text form. The groups' lock is held for one look over their names and then for
//! one group at a time; logs are asked after it was let go. So rows are of about one moment, not of one.

use super::coordinator::Coordinator;
use super::offsets::{Committed, OffsetKey};

/// A committed offset and what lies after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupLag {
    pub group: String,
    pub topic: String,
    pub partition: i32,
    pub committed: i64,
    /// Records between the committed offset and the log's end, as offsets count them.
    pub lag: i64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupLags {
    /// By group, topic and partition.
    pub rows: Vec<GroupLag>,
    /// Offsets that were not looked at because there are more than the limit.
    pub left_out: usize,
}

impl Coordinator {
    /// The lag of groups and of queries, at most `GroupSettings::lag_rows_max` rows, of the first groups by name. Offsets
    /// of topics and partitions that are no longer there have none. May read queries' cursors from disk.
    pub fn lags(&self) -> GroupLags {
        let (names, rows_max, total) = self.names_with_offsets();
        let mut lags = GroupLags::default();
        let mut looked_at = 0;
        for group in names {
            let offsets = self.some_offsets(&group, rows_max - looked_at);
            looked_at += offsets.len();
            self.add_lags(&mut lags, &group, offsets);
            if looked_at >= rows_max {
                break;
            }
        }
        lags.left_out = total.saturating_sub(looked_at);
        let queries = self.all_query_offsets();
        let room = rows_max - looked_at;
        lags.left_out += queries.len().saturating_sub(room);
        for (group, key, committed) in queries.into_iter().take(room) {
            self.add_lags(&mut lags, &group, vec![(key, committed)]);
        }
        lags.rows.sort_by(|a, b| (&a.group, &a.topic, a.partition).cmp(&(&b.group, &b.topic, b.partition)));
        lags
    }

    fn add_lags(&self, lags: &mut GroupLags, group: &str, offsets: Vec<(OffsetKey, Committed)>) {
        for (key, committed) in offsets {
            let Some(end) = self.log_end(&key, &committed) else { continue };
            lags.rows.push(GroupLag {
                group: group.to_owned(),
                topic: key.topic,
                partition: key.partition,
                committed: committed.offset,
                lag: (end - committed.offset).max(0),
            });
        }
    }
}
