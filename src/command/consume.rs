//! `millpond consume`: prints a topic's records, those that are there and those that come.

pub mod format;
pub mod start;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::FetchResponse;
use kafka_protocol::messages::fetch_response::PartitionData;
use tokio::time::Instant;

use super::connect::{Connect, seconds};
use super::progress::{At, Progress, wipe};
use super::report::{OUTPUT_FAILED, counted, note, size};
use super::topic::chosen;
use super::usage::usage;
use crate::kafka::client::{EARLIEST, Isolation, LATEST, Place};
use crate::kafka::member::{BEAT_EVERY, Beat, Member, committed};
use crate::kafka::{Client, Error, fetch};
use format::Format;
use start::Start;

const FETCH_WAIT: Duration = Duration::from_millis(500);
const COMMIT_EVERY: Duration = Duration::from_secs(5);
const RETRY_PAUSE: Duration = Duration::from_millis(100);
const WRITE_BUFFER: usize = 256 << 10;

const EXAMPLES: &str = "Examples:
  millpond consume orders --until-end
  millpond consume orders --from end --key-separator ': '
  millpond consume orders --from 2026-01-31T12:00:00Z --count 10 --format json
  millpond consume orders --group billing --format '%t %p %o %k %s\\n'

--from takes beginning, end, an offset, -N (the last N of each partition) or a time (ISO 8601, UTC where it says no zone).
Exit status: 0 all that was asked for is printed, or Ctrl-C; 1 something failed; 2 wrong use.";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ConsumeArgs {
    topic: String,
    /// Where to begin; with a group only where it has committed nothing
    #[arg(long, value_name = "PLACE", default_value = "beginning", allow_hyphen_values = true)]
    from: Start,
    /// Only this partition; can be repeated [default: all]
    #[arg(short, long, value_name = "N")]
    partition: Vec<i32>,
    /// End after so many records
    #[arg(short = 'n', long, value_name = "N")]
    count: Option<u64>,
    /// End where the topic ends now
    #[arg(short = 'e', long)]
    until_end: bool,
    /// End when nothing came for so long
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    idle: Option<Duration>,
    /// Read as a member of this consumer group, and commit
    #[arg(short, long, value_name = "NAME", conflicts_with = "partition")]
    group: Option<String>,
    /// How records are printed: text, json, hex, or a pattern as kcat's: %t %p %o %T %k %s %h ...
    #[arg(short, long, value_name = "FORM", default_value = "text")]
    format: String,
    /// Print keys too, with this behind them; \t and \n are understood
    #[arg(short = 'K', long, value_name = "TEXT")]
    key_separator: Option<String>,
    /// What is printed for a key or value that is NULL
    #[arg(long, value_name = "TEXT", default_value = "NULL")]
    null: String,
    /// Only what is committed by transactions
    #[arg(long)]
    read_committed: bool,
    /// No line that tells how far it is
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    connect: Connect,
}

struct Consumer {
    client: Arc<Client>,
    topic: String,
    from: Start,
    isolation: Isolation,
    member: Option<Member>,
    positions: BTreeMap<Place, i64>,
    /// Where to stop, where that is asked for.
    ends: Option<HashMap<Place, i64>>,
    /// How many records are to be printed, where that is asked for.
    count: Option<u64>,
    out: BufWriter<io::Stdout>,
    format: Format,
    /// A broker does not answer, and the user was told.
    waiting: bool,
    /// What a broker cannot read now, and the user was told of.
    told: HashSet<Place>,
    progress: Progress,
    counts: Counts,
}

/// What was printed, and read.
#[derive(Clone, Copy, Default)]
struct Counts {
    records: u64,
    bytes: u64,
    /// Offsets that are behind it, and all up to the ends.
    offsets: u64,
    whole: u64,
}

impl Counts {
    /// All that were asked for are printed.
    fn reach(&self, count: Option<u64>) -> bool {
        count.is_some_and(|count| self.records >= count)
    }

    /// How much of the whole is done, where there is one: so many records, or all up to ends that are known.
    fn share(&self, count: Option<u64>, has_ends: bool) -> Option<(u64, u64)> {
        match count {
            Some(count) => Some((self.records, count)),
            None => has_ends.then_some((self.offsets, self.whole)),
        }
    }
}

/// Why it ended.
enum End {
    Done,
    /// Somebody said so.
    Told,
    /// Nobody reads what is printed.
    Closed,
    Failed(anyhow::Error),
}

impl End {
    /// Standard output does not take what is printed.
    fn of_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(anyhow::Error::new(error).context(OUTPUT_FAILED)),
        }
    }
}

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

struct Fetched {
    broker: i32,
    asked: HashMap<Place, i64>,
    answer: Result<FetchResponse, Error>,
}

pub async fn run(args: ConsumeArgs) -> Result<ExitCode> {
    let properties = args.connect.properties()?;
    let terminal = io::stdout().is_terminal();
    let format = Format::parse(&args.format, args.key_separator.as_deref(), &args.null, terminal)
        .map_err(|e| usage(format!("{e:#}")))?;
    let committed_only = args.read_committed || properties.get("isolation.level") == Some("read_committed");
    let client = args.connect.client_of(&properties)?;
    let topic = client.topic(&args.topic, false).await?;
    let partitions = chosen(&args.topic, &topic, &args.partition)?;
    let group =
        args.group.or_else(|| properties.get("group.id").filter(|_| args.partition.is_empty()).map(str::to_string));
    let member = group.map(|group| Member::new(client.clone(), group, vec![args.topic.clone()]));
    let mut consumer = Consumer {
        client,
        topic: args.topic,
        from: args.from,
        isolation: if committed_only { Isolation::Committed } else { Isolation::Uncommitted },
        member,
        positions: BTreeMap::new(),
        ends: None,
        count: args.count,
        out: BufWriter::with_capacity(WRITE_BUFFER, io::stdout()),
        format,
        waiting: false,
        told: HashSet::new(),
        // Records on the terminal tell themselves how far it is.
        progress: Progress::new(!args.quiet && !terminal, "records"),
        counts: Counts::default(),
    };
    let places: Vec<Place> = partitions.into_iter().map(|p| (consumer.topic.clone(), p)).collect();
    if args.until_end {
        let all: Vec<(Place, i64)> = places.iter().map(|p| (p.clone(), LATEST)).collect();
        consumer.ends = Some(consumer.client.offsets(&all, consumer.isolation).await?);
    }
    watch_signals();
    let end = consumer.work(places, args.idle).await;
    let flushed = consumer.out.flush();
    wipe();
    let left = consumer.close().await;
    match end {
        End::Failed(error) => Err(error),
        End::Closed => Ok(ExitCode::SUCCESS),
        End::Done | End::Told => {
            if matches!(end, End::Told) && io::stderr().is_terminal() && !args.quiet {
                note(&consumer.summary());
            }
            left?;
            match flushed {
                Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(e).context(OUTPUT_FAILED),
                _ => Ok(ExitCode::SUCCESS),
            }
        }
    }
}

/// Where standard output blocks, only a second Ctrl-C ends it.
#[allow(clippy::disallowed_methods, reason = "it ends with the process, whose end it is there for")]
fn watch_signals() {
    tokio::spawn(async {
        for _ in 0..2 {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
        }
        std::process::exit(130);
    });
}

impl Consumer {
    async fn work(&mut self, places: Vec<Place>, idle: Option<Duration>) -> End {
        match self.assign(places).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(signal) => signal,
            Err(e) => return End::Failed(e.into()),
        };
        let told = async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        };
        tokio::pin!(told);
        let mut flights = FuturesUnordered::new();
        let mut busy: HashSet<i32> = HashSet::new();
        let mut beat = tokio::time::interval(BEAT_EVERY);
        let mut commit = tokio::time::interval(COMMIT_EVERY);
        let mut last = Instant::now();
        let mut stale = false;
        loop {
            if stale {
                tokio::time::sleep(RETRY_PAUSE).await;
                let topic = self.topic.clone();
                // Where this fails, the next fetch fails as well, and is tried again.
                let refreshed = self.client.refresh(Some(&[&topic])).await;
                stale = false;
                if let Err(error) = refreshed
                    && !error.passes()
                {
                    return error.into();
                }
            }
            if self.counts.reach(self.count) || self.all_read() {
                return End::Done;
            }
            for (broker, asked) in self.wanted() {
                if !busy.insert(broker) {
                    continue;
                }
                let (client, isolation) = (self.client.clone(), self.isolation);
                flights.push(async move {
                    let wanted: Vec<(Place, i64)> =
                        asked.iter().map(|(place, offset)| (place.clone(), *offset)).collect();
                    let answer = fetch::fetch(&client, broker, &wanted, isolation, FETCH_WAIT).await;
                    Fetched { broker, asked, answer }
                });
            }
            let has_flights = !flights.is_empty();
            let until = idle.map(|idle| last + idle);
            tokio::select! {
                () = &mut told => return End::Told,
                () = self.progress.tick() => self.show(),
                Some(fetched) = flights.next(), if has_flights => {
                    let fetched: Fetched = fetched;
                    busy.remove(&fetched.broker);
                    match self.take(fetched).await {
                        Err(end) => return end,
                        Ok(Took::Records) => last = Instant::now(),
                        Ok(Took::Nothing) => {}
                        Ok(Took::Stale) => stale = true,
                    }
                }
                _ = beat.tick(), if self.member.is_some() => {
                    let Some(member) = &self.member else { continue };
                    match member.beat().await {
                        Err(error) => return error.into(),
                        Ok(Beat::Alive) => {}
                        Ok(Beat::Rejoin) => {
                            // What was printed is committed if the group still takes it.
                            if let Err(end) = self.commit().await {
                                return end;
                            }
                            if let Err(end) = self.assign(Vec::new()).await {
                                return end;
                            }
                        }
                    }
                }
                _ = commit.tick(), if self.member.is_some() => {
                    if let Err(end) = self.commit().await {
                        return end;
                    }
                }
                () = tokio::time::sleep_until(until.unwrap_or(last)), if until.is_some() => return End::Done,
                // Nobody leads what is to be read.
                () = tokio::time::sleep(FETCH_WAIT), if !has_flights && !self.positions.is_empty() => stale = true,
            }
        }
    }

    /// Finds out where to read. As a member, what the group gives.
    async fn assign(&mut self, places: Vec<Place>) -> Result<(), End> {
        let (places, known) = match &mut self.member {
            None => (places, BTreeMap::new()),
            Some(member) => {
                let places = member.join().await?;
                let known = if places.is_empty() {
                    BTreeMap::new()
                } else {
                    committed(&self.client, member.group(), Some(&places)).await?
                };
                (places, known)
            }
        };
        let fresh: Vec<Place> = places.iter().filter(|p| !known.contains_key(*p)).cloned().collect();
        let begun = self.from.resolve(&self.client, &fresh, self.isolation).await.map_err(End::Failed)?;
        self.positions = known.into_iter().chain(begun).collect();
        if let Some(ends) = &self.ends {
            let left =
                |(place, from): (&Place, &i64)| ends.get(place).map_or(0, |end| end.saturating_sub(*from).max(0));
            self.counts.whole = self.counts.offsets + self.positions.iter().map(left).sum::<i64>() as u64;
        }
        Ok(())
    }

    fn show(&self) {
        let Counts { records, bytes, .. } = self.counts;
        let share = self.counts.share(self.count, self.ends.is_some());
        self.progress.show(&At { count: records, bytes: Some(bytes), share });
    }

    fn summary(&self) -> String {
        let Counts { records, bytes, .. } = self.counts;
        format!("{}, {} in {:.1} s", counted(records, "record"), size(bytes), self.progress.seconds())
    }

    fn finished(&self, place: &Place, position: i64) -> bool {
        self.ends.as_ref().is_some_and(|ends| ends.get(place).is_none_or(|end| position >= *end))
    }

    fn all_read(&self) -> bool {
        self.ends.is_some() && self.positions.iter().all(|(place, position)| self.finished(place, *position))
    }

    fn wanted(&self) -> BTreeMap<i32, HashMap<Place, i64>> {
        let mut found: BTreeMap<i32, HashMap<Place, i64>> = BTreeMap::new();
        for (place, position) in &self.positions {
            if let (false, Some(leader)) = (self.finished(place, *position), self.client.leader(&place.0, place.1)) {
                found.entry(leader).or_default().insert(place.clone(), *position);
            }
        }
        found
    }

    async fn take(&mut self, fetched: Fetched) -> Result<Took, End> {
        let answer = match fetched.answer {
            Ok(answer) if answer.error_code == 0 => answer,
            Ok(answer) => {
                let error = Error::refused(answer.error_code, format!("cannot read topic \"{}\"", self.topic), None);
                return if error.passes() { Ok(Took::Stale) } else { Err(error.into()) };
            }
            Err(error) if error.passes() => {
                if !std::mem::replace(&mut self.waiting, true) {
                    note(&format!("millpond: {error}; waiting for it"));
                }
                return Ok(Took::Stale);
            }
            Err(error) => return Err(error.into()),
        };
        self.waiting = false;
        let mut took = Took::Nothing;
        for topic in &answer.responses {
            for data in &topic.partitions {
                let place = (topic.topic.to_string(), data.partition_index);
                // The group may have moved on while the answer was on its way.
                let current = self.positions.get(&place).copied();
                let Some(from) = fetched.asked.get(&place).copied().filter(|from| current == Some(*from)) else {
                    continue;
                };
                match self.partition(&place, data, from).await? {
                    Took::Nothing => {}
                    Took::Records if took == Took::Stale => {}
                    more => took = more,
                }
            }
        }
        self.out.flush().map_err(End::of_output)?;
        Ok(took)
    }

    async fn partition(&mut self, place: &Place, data: &PartitionData, from: i64) -> Result<Took, End> {
        match ResponseError::try_from_code(data.error_code) {
            None => {}
            Some(ResponseError::OffsetOutOfRange) => {
                // Retention, or somebody, removed what was to come next.
                let ask = |time| [(place.clone(), time)];
                let first = self.client.offsets(&ask(EARLIEST), self.isolation).await?;
                let first = first.get(place).copied().unwrap_or(0);
                let (topic, partition) = place;
                if from > first {
                    let why = format!("partition {partition} of topic \"{topic}\" ends before offset {from}");
                    return Err(End::Failed(anyhow::anyhow!(why)));
                }
                note(&format!(
                    "millpond: offsets {from} to {first} of partition {partition} of topic \"{topic}\" are gone; going on behind them"
                ));
                let end = self.ends.as_ref().and_then(|ends| ends.get(place).copied()).unwrap_or(i64::MAX);
                self.pass(from, first, end);
                self.positions.insert(place.clone(), first);
                return Ok(Took::Stale);
            }
            Some(ResponseError::CorruptMessage) => return Err(End::Failed(self.damage(place, from).await)),
            Some(error) => {
                let (topic, partition) = place;
                let what = format!("cannot read partition {partition} of topic \"{topic}\"");
                let error = Error::refused(error.code(), what, None);
                if !error.passes() {
                    return Err(error.into());
                }
                if error.code() == Some(ResponseError::KafkaStorageError) && self.told.insert(place.clone()) {
                    note(&format!("millpond: {error}; waiting for it"));
                }
                return Ok(Took::Stale);
            }
        }
        let end = self.ends.as_ref().and_then(|ends| ends.get(place).copied()).unwrap_or(i64::MAX);
        let (out, format, count, counts) = (&mut self.out, &self.format, self.count, &mut self.counts);
        let mut failed = None;
        let mut stopped = None;
        let mut some = false;
        let walked = fetch::walk(&place.0, data, from, self.isolation, |record| {
            if counts.reach(count) || record.offset >= end {
                stopped = Some(record.offset);
                return ControlFlow::Break(());
            }
            if let Err(error) = format.write(record, out) {
                stopped = Some(record.offset);
                failed = Some(error);
                return ControlFlow::Break(());
            }
            counts.records += 1;
            counts.bytes += (record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len)) as u64;
            some = true;
            ControlFlow::Continue(())
        });
        if let Some(error) = failed {
            return Err(End::of_output(error));
        }
        let next = walked.map_err(|why| End::Failed(anyhow::anyhow!(why)))?;
        let next = stopped.unwrap_or(next);
        self.pass(from, next, end);
        self.positions.insert(place.clone(), next);
        self.told.remove(place);
        self.show();
        Ok(if some { Took::Records } else { Took::Nothing })
    }

    /// Counts offsets that are behind it now, as far as the end that is asked for.
    fn pass(&mut self, from: i64, next: i64, end: i64) {
        self.counts.offsets += next.min(end).saturating_sub(from).max(0) as u64;
    }

    /// What cannot be read from an offset on because it is damaged, and how to go on behind it.
    async fn damage(&self, place: &Place, from: i64) -> anyhow::Error {
        let (topic, partition) = place;
        let of = format!("of partition {partition} of topic \"{topic}\"");
        let next = match self.behind_damage(place, from).await {
            Ok(next) => next,
            Err(e) => {
                return anyhow::anyhow!(
                    "offset {from} {of} is damaged where the broker stores it and cannot be read; it is not known where \
                     the damage ends: {e}"
                );
            }
        };
        let reads_on = match &self.member {
            None => format!("--partition {partition} --from {next}"),
            Some(member) => {
                let group = member.group();
                format!("millpond group reset-offsets {group} --topic {topic}:{partition} --to-offset {next} --execute")
            }
        };
        anyhow::anyhow!(
            "offsets {from} to {} {of} are damaged where the broker stores them and cannot be read; to go on behind them: \
             {reads_on}",
            next - 1
        )
    }

    /// The offset behind what is damaged from `bad` on: found by asking, as Kafka's protocol does not tell.
    async fn behind_damage(&self, place: &Place, mut bad: i64) -> Result<i64, Error> {
        let end = self.client.offsets(&[(place.clone(), LATEST)], self.isolation).await?;
        let mut good = end.get(place).copied().unwrap_or(bad + 1).max(bad + 1);
        let mut step = 1;
        while good - bad > 1 {
            // Ever further, and back by halves when there was something.
            let at = if step > 0 { bad.saturating_add(step) } else { bad + (good - bad) / 2 };
            if at >= good {
                step = 0;
                continue;
            }
            let leader = self.client.leader_of(&place.0, place.1).await?;
            let answer =
                fetch::fetch(&self.client, leader, &[(place.clone(), at)], self.isolation, Duration::ZERO).await?;
            let answered = answer.responses.iter().flat_map(|t| &t.partitions).next();
            match answered.map(|data| (ResponseError::try_from_code(data.error_code), data)) {
                Some((Some(ResponseError::CorruptMessage), _)) => {
                    bad = at;
                    step *= 2;
                }
                Some((None, data)) => {
                    // The batch may begin before what was asked for.
                    let base = data.records.as_deref().and_then(|r| r.first_chunk()).map(|b| i64::from_be_bytes(*b));
                    good = base.unwrap_or(at).clamp(bad + 1, at);
                    step = 0;
                }
                Some((Some(error), _)) => {
                    return Err(Error::refused(error.code(), format!("cannot read offset {at}"), None));
                }
                None => return Err(Error::refused(answer.error_code, format!("cannot read offset {at}"), None)),
            }
        }
        Ok(good)
    }

    async fn commit(&mut self) -> Result<(), End> {
        let Some(member) = &self.member else { return Ok(()) };
        if self.positions.is_empty() {
            return Ok(());
        }
        // Only what has been printed counts as read.
        self.out.flush().map_err(End::of_output)?;
        match member.commit(&self.positions).await {
            Ok(_) => Ok(()),
            Err(error) if error.passes() => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Commits what was printed, and leaves the group.
    async fn close(&mut self) -> Result<()> {
        let result = match self.commit().await {
            Err(End::Failed(error)) => Err(error),
            _ => Ok(()),
        };
        if let Some(member) = self.member.take() {
            member.leave().await;
        }
        if let Err(error) = &result {
            bail!("what was printed is not committed: {error:#}");
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Took {
    Nothing,
    Records,
    /// Who leads what may have changed.
    Stale,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_of_what_was_asked_for() {
        let mut counts = Counts { records: 0, bytes: 0, offsets: 0, whole: 400 };
        for (records, offsets) in [(0, 0), (90, 100)] {
            (counts.records, counts.offsets) = (records, offsets);
            assert_eq!(counts.share(None, false), None, "nobody knows how many come");
            assert_eq!(counts.share(None, true), Some((offsets, 400)));
            assert_eq!(counts.share(Some(100), true), Some((records, 100)));
            assert!(!counts.reach(None) && !counts.reach(Some(100)) && counts.reach(Some(records)));
        }
    }
}
