//! One thread that runs all sequences: a place for each of some, and a queue for the others.
//!
//! Law: a sequence's tokens do not depend on its neighbours, bit for bit, for those of a [`Batch`] do not. A sequence that writes
//! waits for at most one chunk of somebody's prompt between two tokens.

use crate::counted::CountedSequence;
use crate::figures::{ServerFigures, TokenKind};
use crate::job::{Job, JobEnd, JobEvent, ScoredToken, SpikesBySite, WrittenToken};
use crate::served::ServedModel;
use snnc::generate::{Request, Stopped, Writing};
use snnc::score::log_sum_exp;
use snnc::sliding::OnFull;
use snnc_ir::Diagnostic;
use snnc_ir::diagnostic::Diagnostics;
use snnc_runtime::{Batch, Rows};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;

/// What hands jobs to the engine. It may be cloned; the engine ends when all are gone.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    jobs: Sender<Job>,
    waiting: Arc<AtomicUsize>,
    queue: usize,
}

impl EngineHandle {
    /// Hands over all jobs of a request, or none where the queue has no room for them.
    pub fn submit(&self, jobs: Vec<Job>) -> bool {
        let count = jobs.len();
        let take = |waiting: usize| waiting.checked_add(count).filter(|&all| all <= self.queue);
        if self.waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_err() {
            return false;
        }
        jobs.into_iter().all(|job| self.jobs.send(job).is_ok())
    }
}

/// Starts the engine: `places` sequences at a time, and at most `queue` that wait.
///
/// # Errors
/// There is not enough memory for so many places; the system has no thread.
pub fn start(
    model: Arc<ServedModel>,
    figures: Arc<ServerFigures>,
    places: usize,
    queue: usize,
) -> Result<(EngineHandle, JoinHandle<()>), Diagnostics> {
    let batch = Batch::new(Arc::clone(&model.program), places)?;
    let (jobs, received) = channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let handle = EngineHandle { jobs, waiting: Arc::clone(&waiting), queue };
    let work = move || {
        let mut loop_ = EngineLoop {
            model: &model,
            figures: &figures,
            received,
            waiting: &waiting,
            queued: VecDeque::new(),
            places: (0..batch.sequences()).map(|_| EnginePlace::default()).collect(),
            batch,
            turn: 0,
        };
        while loop_.admit() {
            loop_.read();
            loop_.write();
        }
    };
    let thread = std::thread::Builder::new().name("snnc engine".into()).spawn(work);
    let thread = thread.map_err(|e| Diagnostic::new("", format!("there is no thread for the engine: {e}")))?;
    Ok((handle, thread))
}

/// A place in the batch: who has it, and what its state has seen.
#[derive(Debug, Default)]
struct EnginePlace<'a> {
    sequence: Option<ServedSequence<'a>>,
    seen: Vec<u32>,
}

/// A sequence that has a place.
#[derive(Debug)]
struct ServedSequence<'a> {
    job: Job,
    writing: Writing<'a>,
    /// Tokens of the prompt that were run, or were there.
    read: usize,
    cached: usize,
    /// The token to run next, once the prompt is read.
    next: u32,
    scores: Vec<ScoredToken>,
    counted: Option<CountedSequence>,
    told: Instant,
}

impl ServedSequence<'_> {
    fn is_reading(&self) -> bool {
        self.read < self.job.ids.len()
    }

    /// Tells whoever asked; whether anybody listens.
    fn tell(&self, event: JobEvent) -> bool {
        self.job.events.send((self.job.index, event)).is_ok()
    }

    /// What is taken of logits: the next token, and what is told of it. None: it is done.
    fn take(&mut self, logits: &[f32], full: bool, spikes: Option<SpikesBySite>) -> Result<bool, Diagnostics> {
        let before = self.writing.written().len();
        let next = self.writing.take(logits, full)?;
        let written = &self.writing.written()[before..];
        let scored = self.job.top.zip(written.first()).map(|(top, &id)| scored(logits, id, top));
        let is_token = !written.is_empty();
        let mut text = String::new();
        self.writing.show(false, &mut |piece| {
            text.push_str(piece);
            Ok(())
        })?;
        if is_token {
            self.tell(JobEvent::Written(WrittenToken { text, scored, spikes }));
        }
        self.next = next.unwrap_or_default();
        Ok(next.is_some())
    }
}

/// A token with its probability and the likeliest others.
fn scored(logits: &[f32], id: u32, top: usize) -> ScoredToken {
    let sum = log_sum_exp(logits);
    let logprob = |id: u32| f64::from(logits[id as usize]) - sum;
    ScoredToken { id, logprob: Some(logprob(id)), top: likeliest(logits, top).map(|id| (id, logprob(id))).collect() }
}

/// The largest logits from the largest down; of equal ones the first.
fn likeliest(logits: &[f32], count: usize) -> impl Iterator<Item = u32> {
    let mut best: Vec<u32> = Vec::with_capacity(count + 1);
    for (id, logit) in (0u32..).zip(logits) {
        let last = best.last().map(|&last| logits[last as usize]);
        if best.len() < count || last.is_some_and(|last| *logit > last) {
            let at = best.partition_point(|&other| logits[other as usize] >= *logit);
            best.insert(at, id);
            best.truncate(count);
        }
    }
    best.into_iter()
}

struct EngineLoop<'a> {
    model: &'a ServedModel,
    figures: &'a ServerFigures,
    received: Receiver<Job>,
    waiting: &'a AtomicUsize,
    queued: VecDeque<Job>,
    batch: Batch,
    places: Vec<EnginePlace<'a>>,
    /// Whose prompt is read next.
    turn: usize,
}

impl<'a> EngineLoop<'a> {
    /// Takes jobs in, and waits for one where there is nothing to do. Whether there will be more.
    fn admit(&mut self) -> bool {
        let is_idle = self.queued.is_empty() && self.places.iter().all(|place| place.sequence.is_none());
        if is_idle {
            self.tell_figures();
            match self.received.recv() {
                Ok(job) => self.queued.push_back(job),
                Err(_) => return false,
            }
        }
        while let Ok(job) = self.received.try_recv() {
            self.queued.push_back(job);
        }
        for place in &mut self.places {
            // Who no longer listens gives up the place.
            let is_gone = place.sequence.as_ref().is_some_and(|sequence| sequence.job.events.is_closed());
            if is_gone {
                place.sequence = None;
            }
        }
        while self.places.iter().any(|place| place.sequence.is_none()) {
            let Some(job) = self.queued.pop_front() else { break };
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            if !job.events.is_closed() {
                self.begin(job);
            }
        }
        self.tell_figures();
        true
    }

    fn tell_figures(&self) {
        let running = self.places.iter().filter(|place| place.sequence.is_some()).count();
        self.figures.running.set(running as i64);
        self.figures.waiting.set(self.waiting.load(Ordering::SeqCst) as i64);
    }

    /// Gives a job the free place that has seen most of its prompt.
    fn begin(&mut self, job: Job) {
        let same = |place: &EnginePlace<'_>| place.seen.iter().zip(&job.ids).take_while(|(a, b)| a == b).count();
        let free = self.places.iter().enumerate().filter(|(_, place)| place.sequence.is_none());
        // Of equal ones the emptiest, so that what others may need stays.
        let best = free.max_by_key(|(i, place)| (same(place), usize::MAX - place.seen.len(), usize::MAX - i));
        let Some((at, place)) = best else { return };
        // The last token is run, for it is what the text follows; of scored prompts all are.
        let is_scored = job.scores_prompt();
        let cached = if job.counted || is_scored { 0 } else { same(place).min(job.ids.len() - 1) };
        let request = Request {
            prompt: if job.begins { "" } else { " " },
            most: Some(job.most),
            options: job.options,
            stop: &job.stop,
            on_full: OnFull::Stop,
        };
        let writing = Writing::new(&self.model.tokens, request, job.ids.clone(), 0);
        let counted = if job.counted { CountedSequence::new(self.model) } else { Ok(None) };
        let mut sequence = ServedSequence {
            writing,
            read: 0,
            cached: 0,
            next: 0,
            scores: Vec::new(),
            counted: None,
            told: Instant::now(),
            job,
        };
        match counted {
            Ok(counted) => sequence.counted = counted,
            Err(diagnostics) => {
                sequence.tell(JobEvent::Failed(diagnostics));
                return;
            }
        }
        if sequence.counted.is_none() {
            let shortened = cached <= self.batch.past(at) && self.batch.shorten(at, cached);
            if !shortened {
                self.batch.reset(at);
            }
            sequence.cached = self.batch.past(at);
            sequence.read = sequence.cached;
            self.places[at].seen.truncate(sequence.cached);
            self.figures.add_tokens(TokenKind::Cached, sequence.cached);
        }
        self.places[at].sequence = Some(sequence);
        if self.places[at].sequence.as_ref().is_some_and(|one| one.writing.stopped.is_some() && !is_scored) {
            // Nothing is asked for.
            self.finish(at);
        }
    }

    /// One chunk of one prompt; or of several that are short, all of them.
    fn read(&mut self) {
        let chunk = self.batch_chunk();
        let mut room = chunk;
        let mut short = Vec::new();
        for (at, place) in self.places.iter().enumerate() {
            let Some(sequence) = place.sequence.as_ref().filter(|sequence| sequence.is_reading()) else { continue };
            let left = sequence.job.ids.len() - sequence.read;
            let is_plain = sequence.counted.is_none() && !sequence.job.scores_prompt();
            if is_plain && left <= room {
                room -= left;
                short.push(at);
            }
        }
        if short.len() > 1 {
            self.read_together(&short);
            return;
        }
        let count = self.places.len();
        let reading = |at: &usize| self.places[*at].sequence.as_ref().is_some_and(ServedSequence::is_reading);
        let Some(at) = (0..count).map(|i| (self.turn + i) % count).find(reading) else { return };
        self.turn = at + 1;
        self.read_chunk(at, chunk);
    }

    fn batch_chunk(&self) -> usize {
        self.model.program.options().chunk
    }

    /// The rest of several prompts in shared passes.
    fn read_together(&mut self, places: &[usize]) {
        let taken: Vec<(usize, ServedSequence<'a>)> =
            places.iter().filter_map(|&at| Some((at, self.places[at].sequence.take()?))).collect();
        let prompts: Vec<(usize, &[u32])> =
            taken.iter().map(|(at, sequence)| (*at, &sequence.job.ids[sequence.read..])).collect();
        let errors: Vec<Option<Diagnostic>> = self.batch.prefill(&prompts).into_iter().map(Result::err).collect();
        for ((at, mut sequence), error) in taken.into_iter().zip(errors) {
            let logits = self.logits(at, error);
            self.figures.add_tokens(TokenKind::Prompt, sequence.job.ids.len() - sequence.read);
            sequence.read = sequence.job.ids.len();
            self.places[at].seen = sequence.job.ids.clone();
            if logits.is_err() {
                self.batch.reset(at);
                self.places[at].seen.clear();
            }
            self.go_on(at, sequence, logits, None);
        }
    }

    /// The next part of a prompt.
    fn read_chunk(&mut self, at: usize, chunk: usize) {
        let Some(mut sequence) = self.places[at].sequence.take() else { return };
        let from = sequence.read;
        let to = (from + chunk).min(sequence.job.ids.len());
        let is_last = to == sequence.job.ids.len();
        let is_scored = sequence.job.scores_prompt();
        let rows = match (is_scored, is_last) {
            (true, _) => Rows::All,
            (false, true) => Rows::Last,
            (false, false) => Rows::None,
        };
        let part = &sequence.job.ids[from..to];
        let done = match &mut sequence.counted {
            Some(counted) => counted.run(self.model, part, rows, true).map(|(logits, by_site)| (logits, Some(by_site))),
            None => self.batch.forward(at, part, rows).map(drop).map_err(Diagnostics::from).map(|()| {
                let logits = self.batch.take_f32(at, &self.model.output).unwrap_or_default();
                (logits, None)
            }),
        };
        let (logits, spikes) = match done {
            Ok(done) => done,
            Err(diagnostics) => {
                sequence.tell(JobEvent::Failed(diagnostics));
                return;
            }
        };
        self.figures.add_tokens(TokenKind::Prompt, to - from);
        sequence.read = to;
        if sequence.counted.is_none() {
            self.places[at].seen = sequence.job.ids[..to].to_vec();
        }
        let width = self.model.vocabulary;
        if is_scored {
            score_prompt(&mut sequence, &logits, from, width);
        }
        if !is_last {
            self.places[at].sequence = Some(sequence);
            return;
        }
        if is_scored {
            let scores = std::mem::take(&mut sequence.scores);
            sequence.tell(JobEvent::Prompt(scores));
        }
        let last = if logits.len() >= width { logits[logits.len() - width..].to_vec() } else { Vec::new() };
        self.go_on(at, sequence, Ok(last), spikes);
    }

    /// A token of every sequence that writes.
    fn write(&mut self) {
        let is_writing = |sequence: &ServedSequence<'_>| !sequence.is_reading();
        let mut taken = Vec::new();
        for (at, place) in self.places.iter_mut().enumerate() {
            if place.sequence.as_ref().is_some_and(is_writing) {
                taken.extend(place.sequence.take().map(|sequence| (at, sequence)));
            }
        }
        let (counted, plain): (Vec<_>, Vec<_>) = taken.into_iter().partition(|(_, one)| one.counted.is_some());
        for (at, mut sequence) in counted {
            let next = [sequence.next];
            let done = sequence.counted.as_mut().map(|counted| counted.run(self.model, &next, Rows::Last, false));
            let (logits, spikes) = match done {
                Some(Ok((logits, spikes))) => (Ok(logits), Some(spikes)),
                Some(Err(diagnostics)) => (Err(diagnostics), None),
                None => continue,
            };
            self.go_on(at, sequence, logits, spikes);
        }
        let next: Vec<(usize, u32)> = plain.iter().map(|(at, sequence)| (*at, sequence.next)).collect();
        let errors: Vec<Option<Diagnostic>> = self.batch.step(&next).into_iter().map(Result::err).collect();
        for ((at, sequence), error) in plain.into_iter().zip(errors) {
            if error.is_none() {
                self.places[at].seen.push(sequence.next);
            }
            let logits = self.logits(at, error);
            self.go_on(at, sequence, logits, None);
        }
    }

    /// The logits that the last pass gave a place.
    fn logits(&mut self, at: usize, error: Option<Diagnostic>) -> Result<Vec<f32>, Diagnostics> {
        match error {
            Some(error) => Err(error.into()),
            None => Ok(self.batch.take_f32(at, &self.model.output).unwrap_or_default()),
        }
    }

    /// Chooses the next token of a sequence, which keeps its place if there is one.
    fn go_on(
        &mut self,
        at: usize,
        mut sequence: ServedSequence<'a>,
        logits: Result<Vec<f32>, Diagnostics>,
        spikes: Option<SpikesBySite>,
    ) {
        let past = sequence.counted.as_ref().map_or_else(|| self.batch.past(at), CountedSequence::past);
        let full = past >= self.model.context();
        let before = sequence.writing.written().len();
        let taken = match sequence.writing.stopped {
            Some(_) => Ok(false),
            None => logits.and_then(|logits| sequence.take(&logits, full, spikes)),
        };
        let seconds = sequence.told.elapsed().as_secs_f64();
        if before > 0 {
            self.figures.next_token.observe(seconds);
        }
        sequence.told = Instant::now();
        self.figures.add_tokens(TokenKind::Written, sequence.writing.written().len() - before);
        match taken {
            Ok(true) => self.places[at].sequence = Some(sequence),
            Ok(false) => {
                self.places[at].sequence = Some(sequence);
                self.finish(at);
            }
            Err(diagnostics) => {
                sequence.tell(JobEvent::Failed(diagnostics));
            }
        }
    }

    /// Says how a sequence ended, and frees its place.
    fn finish(&mut self, at: usize) {
        let Some(mut sequence) = self.places[at].sequence.take() else { return };
        let counts = sequence.counted.as_ref().map(|counted| counted.counts(self.model));
        if let Some(counts) = &counts {
            self.figures.spikes.inc_by(counts.spikes);
            if let Some((_, Some(joules))) = counts.joules.first() {
                self.figures.joules.inc_by(*joules);
            }
        }
        let mut text = String::new();
        let shown = sequence.writing.show(true, &mut |piece| {
            text.push_str(piece);
            Ok(())
        });
        let end = JobEnd {
            text,
            stopped: sequence.writing.stopped.unwrap_or(Stopped::Enough),
            prompt_tokens: sequence.job.ids.len(),
            cached_tokens: sequence.cached,
            tokens: sequence.writing.written().len(),
            counts,
        };
        sequence.tell(shown.map_or_else(JobEvent::Failed, |()| JobEvent::End(end)));
    }
}

/// Scores tokens of a prompt by the logits of those before them: row `i` of the logits is of token `from + i`.
fn score_prompt(sequence: &mut ServedSequence<'_>, logits: &[f32], from: usize, width: usize) {
    let ids = &sequence.job.ids;
    let top = sequence.job.top.unwrap_or(0);
    if from == 0 {
        sequence.scores.push(ScoredToken { id: ids[0], logprob: None, top: Vec::new() });
    }
    for (i, row) in logits.chunks_exact(width).enumerate() {
        if let Some(&next) = ids.get(from + i + 1) {
            sequence.scores.push(scored(row, next, top));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_likeliest_come_first_and_of_equal_ones_the_first() {
        let logits = [0.5, 3.0, -1.0, 3.0, 2.0];
        assert_eq!(likeliest(&logits, 3).collect::<Vec<u32>>(), [1, 3, 4]);
        assert_eq!(likeliest(&logits, 9).collect::<Vec<u32>>(), [1, 3, 4, 0, 2]);
        assert_eq!(likeliest(&logits, 0).count(), 0);
    }

    #[test]
    fn probabilities_of_all_tokens_add_up_to_one() {
        let logits = [0.5, 3.0, -1.0];
        let all = scored(&logits, 1, 3);
        let sum: f64 = all.top.iter().map(|(_, logprob)| logprob.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        assert_eq!(all.top[0].1, all.logprob.expect("it is scored"));
    }
}
