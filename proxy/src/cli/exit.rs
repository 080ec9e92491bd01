//! How a command ends.

use std::error::Error;
use std::io;
use std::process::ExitCode;

use caracal_policies::Report;

use super::out::{Out, Style};
use crate::control::ControlError;

/// The end of `--help`.
pub(super) const HELP: &str = "\
Exit codes: 0 done, 1 failed, 2 usage, 3 denied, 64 bad configuration, 65 store or ledger
mismatch, 66 state folder locked, 69 no edge is running. `caracal --help` says more.";

/// How the process ends, as its exit code says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: it is done.
    Done,
    /// 1: it did not work.
    Failed,
    /// 2: what was given cannot be worked on, as with arguments that are not understood.
    BadInput,
    /// 3: the edge refused the call.
    Denied,
    /// 64: a file the operator wrote is wrong (`EX_USAGE` of sysexits(3)).
    BadConfiguration,
    /// 65: store and ledger do not belong together, or the ledger does not verify (`EX_DATAERR`).
    Mismatch,
    /// 69: no edge is running to ask (`EX_UNAVAILABLE`).
    Unavailable,
    /// What [`crate::serve::ServeError::exit_code`] says.
    Serve(u8),
}

impl Exit {
    /// The number the shell sees.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::BadInput => 2,
            Self::Denied => 3,
            Self::BadConfiguration => 64,
            Self::Mismatch => 65,
            Self::Unavailable => 69,
            Self::Serve(code) => code,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(super) enum Failed {
    /// Said in one message.
    Said(Exit, String),
    /// Problems in files.
    Report(Report),
    /// Whoever read our output has left, as `head` does; nothing is wrong and nobody is listening.
    NobodyReads,
}

impl Failed {
    /// A plain failure with its message.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self::Said(Exit::Failed, message.into())
    }

    /// A failure of something, with everything it has to say about the cause.
    pub(super) fn because(what: impl Into<String>, cause: &dyn Error) -> Self {
        Self::Said(Exit::Failed, format!("{}: {}", what.into(), chain(cause)))
    }

    /// Prints it and gives the exit code.
    pub(super) fn report(self, out: &mut Out) -> Exit {
        let (exit, text) = match self {
            Self::Said(exit, text) => (exit, format!("{} {text}", out.paint_error(Style::Bad, "error:"))),
            // Each problem begins with a word of its own.
            Self::Report(report) => (Exit::BadConfiguration, report.to_string()),
            Self::NobodyReads => return Exit::Done,
        };
        // When standard error is gone too there is nobody left to tell.
        drop(out.note(text.trim_end()));
        exit
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::NobodyReads;
        }
        Self::new(format!("the output could not be written: {error}"))
    }
}

impl From<Report> for Failed {
    fn from(report: Report) -> Self {
        Self::Report(report)
    }
}

impl From<ControlError> for Failed {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::NotRunning { .. } => Exit::Unavailable,
            ControlError::NotPermitted { .. }
            | ControlError::Impostor { .. }
            | ControlError::Io { .. }
            | ControlError::TimedOut { .. }
            | ControlError::Malformed { .. }
            | ControlError::Failed(_) => Exit::Failed,
        };
        Self::Said(exit, chain(&error))
    }
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        text.push_str(": ");
        text.push_str(&deeper.to_string());
        cause = deeper.source();
    }
    text
}
