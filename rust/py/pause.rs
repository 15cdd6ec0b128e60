//! Keeps the garbage collector from running while objects are built.
//!
//! Python looks for garbage after each so many new containers. All that is built here is alive: the
//! conversation of an agent would be looked through several times before it is whole, and every so
//! often with it everything else that the process holds. Nobody sees the pause: no Python runs
//! within it, so no other thread does.

use std::cell::Cell;

use pyo3::Python;

use super::raw::{collect_again, collect_no_more};

/// A pause, until it is dropped.
pub struct Pause<'py> {
    py: Python<'py>,
    was_on: Cell<bool>,
}

impl<'py> Pause<'py> {
    pub fn new(py: Python<'py>) -> Self {
        Self {
            py,
            was_on: Cell::new(collect_no_more(py)),
        }
    }

    /// Do something that may run Python, which finds the collector as it would be without the pause,
    /// and may turn it on or off.
    pub fn lifted<T>(&self, work: impl FnOnce() -> T) -> T {
        struct Again<'a, 'py>(&'a Pause<'py>);
        impl Drop for Again<'_, '_> {
            fn drop(&mut self) {
                self.0.was_on.set(collect_no_more(self.0.py));
            }
        }
        self.end();
        let _again = Again(self);
        work()
    }

    fn end(&self) {
        if self.was_on.replace(false) {
            collect_again(self.py);
        }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.end();
    }
}
