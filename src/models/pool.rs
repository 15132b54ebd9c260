//! Many items, few threads, results in the order of the items.
//!
//! What an item yields doesn't depend on the number of threads, so neither does
//! anything computed from the results in order.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Apply `work` to every item on at most `concurrency` threads.
///
/// `stop` is looked at before each item: once it says true no further item is
/// begun, and those already begun are finished. An item that was never begun
/// yields `None`. Typically:
///
/// ```
/// # use proofline::{host::signal::Interrupt, models::pool::run_bounded};
/// # let interrupt = Interrupt::default();
/// let squares = run_bounded(&[1, 2, 3], 2, || interrupt.is_set(), |_, n| n * n);
/// assert_eq!(squares, [Some(1), Some(4), Some(9)]);
/// ```
///
/// A panic in `work` is passed on after the other threads have finished their item.
pub fn run_bounded<T, R>(
    items: &[T],
    concurrency: usize,
    stop: impl Fn() -> bool + Sync,
    work: impl Fn(usize, &T) -> R + Sync,
) -> Vec<Option<R>>
where
    T: Sync,
    R: Send,
{
    let next = AtomicUsize::new(0);
    // Each thread keeps what it made; nothing is sent while items are worked on.
    let take = || {
        let mut done = Vec::new();
        while !stop() {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(index) else { break };
            let bomb = Bomb {
                next: &next,
                past: items.len(),
            };
            done.push((index, work(index, item)));
            std::mem::forget(bomb);
        }
        done
    };
    let threads = concurrency.clamp(1, items.len().max(1));
    let mut results: Vec<Option<R>> = Vec::new();
    results.resize_with(items.len(), || None);
    let mut place = |done: Vec<(usize, R)>| {
        for (index, result) in done {
            results[index] = Some(result);
        }
    };
    if threads == 1 {
        place(take());
        return results;
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (1..threads).map(|_| scope.spawn(take)).collect();
        place(take());
        for thread in threads {
            match thread.join() {
                Ok(done) => place(done),
                Err(panic) => resume_unwind(panic),
            }
        }
    });
    results
}

/// Dropped by a panic only: the other threads find nothing left to begin.
struct Bomb<'a> {
    next: &'a AtomicUsize,
    past: usize,
}

impl Drop for Bomb<'_> {
    fn drop(&mut self) {
        self.next.store(self.past, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn order_does_not_depend_on_threads() {
        let items: Vec<u64> = (0..1000).collect();
        let expected: Vec<_> = items.iter().map(|n| Some(n * 3)).collect();
        for concurrency in [0, 1, 2, 7, 64, 5000] {
            let results = run_bounded(
                &items,
                concurrency,
                || false,
                |index, n| {
                    assert_eq!(index as u64, *n);
                    n * 3
                },
            );
            assert_eq!(results, expected, "{concurrency}");
        }
        assert!(run_bounded(&[] as &[u8], 4, || false, |_, _| ()).is_empty());
    }

    #[test]
    fn never_more_than_allowed_in_flight() {
        let flying = AtomicUsize::new(0);
        let most = AtomicUsize::new(0);
        run_bounded(
            &[(); 200],
            5,
            || false,
            |_, ()| {
                let now = flying.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                std::thread::yield_now();
                flying.fetch_sub(1, Ordering::SeqCst);
            },
        );
        assert!(most.load(Ordering::SeqCst) <= 5);
    }

    #[test]
    fn stop_leaves_the_rest_unbegun() {
        let stop = AtomicBool::new(false);
        let results = run_bounded(
            &(0..100).collect::<Vec<_>>(),
            3,
            || stop.load(Ordering::SeqCst),
            |_, n| {
                if *n == 10 {
                    stop.store(true, Ordering::SeqCst);
                }
                *n
            },
        );
        let begun = results.iter().flatten().count();
        assert!((11..=14).contains(&begun), "{begun}");
        assert_eq!(results[10], Some(10));
        assert_eq!(results[99], None);
    }

    #[test]
    fn a_panic_is_passed_on_and_ends_the_work() {
        let begun = AtomicUsize::new(0);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            run_bounded(
                &[(); 5_000],
                4,
                || false,
                |index, ()| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    assert!(index != 5, "planted");
                    // Printing the panic takes a while; the others must not be done by then.
                    std::thread::sleep(std::time::Duration::from_millis(1));
                },
            )
        }));
        assert!(panicked.is_err());
        assert!(begun.load(Ordering::SeqCst) < 5_000);
    }
}
