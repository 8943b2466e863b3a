//! A value that one thread changes and another waits for.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Locks a mutex, also if a thread panicked while it held the lock: the values are consistent between
/// statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Like [`lock`], but returns `None` if another thread holds the lock.
pub(super) fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}
/// A mutex with a condition variable that signals each change.

#[derive(Debug, Default)]
pub(super) struct Watched<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T> Watched<T> {
    pub fn read<R>(&self, read: impl FnOnce(&T) -> R) -> R {
        read(&lock(&self.value))
    }

    pub fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let result = change(&mut lock(&self.value));
        self.changed.notify_all();
        result
    }

    /// Waits until `look` returns a value, and returns it. Returns `None` after `patience`.
    pub fn wait<R>(&self, patience: Duration, mut look: impl FnMut(&T) -> Option<R>) -> Option<R> {
        let start = Instant::now();
        let mut value = lock(&self.value);
        loop {
            if let Some(answer) = look(&value) {
                return Some(answer);
            }
            let left = patience.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            value = self.changed.wait_timeout(value, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
