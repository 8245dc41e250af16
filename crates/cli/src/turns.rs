//! Several transcripts that are made at the same time, written one after the other.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::output::Output;

/// An output that many write to, in the order of their numbers. What the first writes is written at once; what others write is kept until
/// their turn, and that is no more than their transcripts.
pub(crate) struct Turns(Mutex<State>);

struct State {
    output: Output,
    /// Whose turn it is.
    number: usize,
    kept: BTreeMap<usize, String>,
}

impl Turns {
    /// The turn is that of number 0.
    pub(crate) fn new(output: Output) -> Self {
        Self(Mutex::new(State { output, number: 0, kept: BTreeMap::new() }))
    }

    /// Whether it is standard output.
    pub(crate) fn is_stdout(&self) -> bool {
        matches!(self.lock().output, Output::Stdout)
    }

    /// Where number `number` writes.
    pub(crate) fn turn(&self, number: usize) -> Turn<'_> {
        Turn { turns: self, number }
    }

    /// The next number has its turn: what it has written already is written now.
    pub(crate) fn next(&self) -> anyhow::Result<()> {
        let state = &mut *self.lock();
        state.number += 1;
        state.kept.remove(&state.number).map_or(Ok(()), |text| state.output.write(&text))
    }

    /// Puts the output in its place; one without anything in it only where all is well.
    pub(crate) fn finish(&self, all_is_well: bool) -> anyhow::Result<()> {
        self.lock().output.finish_if(all_is_well)
    }

    /// The same for a program that ends here, with all that is kept, if the output is a file: another may hang.
    pub(crate) fn break_off(&self) -> anyhow::Result<()> {
        // Where somebody is writing, that may hang, too.
        let Ok(mut state) = self.0.try_lock() else { return Ok(()) };
        let state = &mut *state;
        if !matches!(state.output, Output::File(..)) {
            return Ok(());
        }
        for (_, text) in std::mem::take(&mut state.kept) {
            state.output.write(&text)?;
        }
        state.output.finish_if(false)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one of many writes to, whole characters at a time.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    number: usize,
}

impl Write for Turn<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let state = &mut *self.turns.lock();
        if self.number == state.number {
            return Write::write(&mut state.output, bytes);
        }
        let text = str::from_utf8(bytes).map_err(io::Error::other)?;
        state.kept.entry(self.number).or_default().push_str(text);
        Ok(bytes.len())
    }

    /// The output sees to it that what is written can be read at once.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// What is in a file that many have written to, by number and text; "next" is the next turn.
    fn written(steps: &[(usize, &str)]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let turns = Turns::new(Output::open(Some(&path)).unwrap());
        for &(number, text) in steps {
            match text {
                "next" => turns.next().unwrap(),
                text => turns.turn(number).write_all(text.as_bytes()).unwrap(),
            }
        }
        turns.finish(true).unwrap();
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn who_is_early_waits_for_its_turn() {
        let steps = [(1, "b"), (0, "a"), (2, "d"), (0, "next"), (1, "c"), (2, "e"), (1, "next"), (2, "f")];
        assert_eq!(written(&steps), "abcdef");
    }

    #[test]
    fn what_is_kept_is_written_where_the_program_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let turns = Turns::new(Output::open(Some(&path)).unwrap());
        turns.break_off().unwrap();
        assert!(!path.exists(), "there is nothing to write");
        for (number, text) in [(2, "c"), (0, "a"), (1, "b")] {
            turns.turn(number).write_all(text.as_bytes()).unwrap();
        }
        turns.break_off().unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "abc");
    }

    #[test]
    fn who_has_written_nothing_is_passed_over() {
        assert_eq!(written(&[(2, "c"), (0, "next"), (1, "next")]), "c");
    }
}
