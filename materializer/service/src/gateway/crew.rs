//! Named threads that do what blocks, behind one bounded queue.

use std::fmt;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::ReadError;

/// Threads that share a queue of jobs. Dropping it lets them finish what is queued, and joins them.
pub(super) struct Crew<Job> {
    /// Taken at the drop, which is what ends the threads.
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl<Job: Send + 'static> Crew<Job> {
    /// Starts a thread for each of `workers`. A worker is called with the jobs that had queued up
    /// when it was free, at least one and at most `batch_max`.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub(super) fn start<Worker>(
        name: &str,
        workers: Vec<Worker>,
        queue_max: usize,
        batch_max: usize,
    ) -> std::io::Result<Self>
    where
        Worker: FnMut(Vec<Job>) + Send + 'static,
    {
        let (queue, jobs) = sync_channel(queue_max);
        let jobs = Arc::new(Mutex::new(jobs));
        let mut crew = Self {
            queue: Some(queue),
            threads: Vec::new(),
        };
        for (number, mut worker) in workers.into_iter().enumerate() {
            let jobs = Arc::clone(&jobs);
            let work = move || {
                while let Some(batch) = next_batch(&jobs, batch_max) {
                    worker(batch);
                }
            };
            let thread = thread::Builder::new().name(format!("{name}-{number}"));
            crew.threads.push(thread.spawn(work)?);
        }
        Ok(crew)
    }

    /// Queues a job.
    ///
    /// # Errors
    /// [`ReadError::Unavailable`] where the queue is full; the job is dropped.
    pub(super) fn hand(&self, job: Job) -> Result<(), ReadError> {
        let queue = self.queue.as_ref().expect("taken at the drop only");
        queue.try_send(job).map_err(|refused| match refused {
            TrySendError::Full(_) => ReadError::Unavailable("too many requests wait".into()),
            TrySendError::Disconnected(_) => ReadError::Broken("no reader is left".into()),
        })
    }

    /// Says whether all threads are there: one that panicked is not started again.
    pub(super) fn is_whole(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished)
    }
}

/// Waits for a job and takes what has queued up behind it; `None` once the crew ends. A thread
/// waits holding the lock: the others have nothing better to do than to wait for it.
fn next_batch<Job>(jobs: &Mutex<Receiver<Job>>, batch_max: usize) -> Option<Vec<Job>> {
    let jobs = jobs.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = vec![jobs.recv().ok()?];
    batch.extend(jobs.try_iter().take(batch_max.saturating_sub(1)));
    Some(batch)
}

impl<Job> Drop for Crew<Job> {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            if thread.join().is_err() {
                tracing::error!(thread = name, "a thread of the gateway panicked");
            }
        }
    }
}

impl<Job> fmt::Debug for Crew<Job> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Crew")
            .field("threads", &self.threads.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_what_was_queued_is_done_before_the_end() {
        let (started, has_started) = sync_channel(1);
        let (let_go, go) = sync_channel::<()>(1);
        let (done, results) = sync_channel(10);
        let worker = move |batch: Vec<u32>| {
            started.send(()).unwrap();
            go.recv().ok();
            done.send(batch).unwrap();
        };
        let crew = Crew::start("test", vec![worker], 3, 2).unwrap();
        crew.hand(1).unwrap();
        has_started.recv().unwrap();
        for job in 2..5 {
            crew.hand(job).unwrap();
        }
        assert!(crew.hand(5).is_err(), "three jobs wait already");
        drop(let_go);
        let drain = std::thread::spawn(move || has_started.into_iter().count());
        drop(crew);
        assert_eq!(
            results.into_iter().collect::<Vec<_>>(),
            [vec![1], vec![2, 3], vec![4]]
        );
        assert_eq!(drain.join().unwrap(), 2);
    }
}
