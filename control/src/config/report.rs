//! What is wrong with a configuration, shown with file, line, column and a caret.
//!
//! The source that is quoted is a copy with every secret covered by asterisks (`cover.rs`).

use std::cell::RefCell;
use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

/// Octets of the file.
pub type Span = Range<usize>;

/// Why a value was refused; the place is added by whoever read it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    /// What is wrong: one line.
    pub title: String,
    /// What to do about it.
    pub help: String,
}

impl Refusal {
    pub fn new(title: impl Into<String>, help: impl Into<String>) -> Refusal {
        Refusal {
            title: title.into(),
            help: help.into(),
        }
    }
}

/// One thing that is wrong, or probably not meant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Problem {
    pub span: Span,
    pub title: String,
    /// Beside the caret.
    pub label: String,
    pub help: String,
}

/// Collects problems, so that a reader sees all of them at once.
#[derive(Default)]
pub(super) struct Problems {
    errors: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<String>>,
    /// Values that must not be shown.
    covers: RefCell<Vec<Span>>,
}

impl Problems {
    pub fn refuse(&self, span: &Span, refusal: Refusal) {
        self.report(span, "", refusal);
    }

    pub fn report(&self, span: &Span, label: &str, refusal: Refusal) {
        self.errors.borrow_mut().push(Problem {
            span: span.clone(),
            title: refusal.title,
            label: label.to_owned(),
            help: refusal.help,
        });
    }

    pub fn cover(&self, span: Span) {
        self.covers.borrow_mut().push(span);
    }

    pub fn covers(&self) -> Vec<Span> {
        self.covers.borrow().clone()
    }

    pub fn warn(&self, text: String) {
        self.warnings.borrow_mut().push(text);
    }

    pub fn count(&self) -> usize {
        self.errors.borrow().len()
    }

    pub fn warnings(&self) -> Vec<String> {
        self.warnings.borrow().clone()
    }

    /// In the order of the file.
    pub fn into_sorted(self) -> Vec<Problem> {
        let mut problems = self.errors.into_inner();
        problems.sort_by_key(|p| (p.span.start, p.span.end));
        problems.dedup();
        problems
    }
}

/// A configuration that was refused. `Display` is the whole report, without colour.
pub struct ConfigError {
    file: String,
    /// The file's text, secrets covered; empty when it could not be read.
    covered: String,
    problems: Vec<Problem>,
}

impl ConfigError {
    pub(super) fn new(file: &str, covered: String, problems: Vec<Problem>) -> ConfigError {
        ConfigError {
            file: file.to_owned(),
            covered,
            problems,
        }
    }

    /// How many problems there are.
    pub fn count(&self) -> usize {
        self.problems.len()
    }

    /// The titles alone, for tests and for `--json`.
    pub fn titles(&self) -> impl Iterator<Item = &str> {
        self.problems.iter().map(|p| p.title.as_str())
    }

    /// One entry for each problem: line, column (both from 1, the column in characters), title
    /// and help.
    pub fn located(&self) -> impl Iterator<Item = (usize, usize, &str, &str)> {
        self.problems.iter().map(|problem| {
            let (line, column) = self.line_and_column(problem.span.start);
            (line, column, problem.title.as_str(), problem.help.as_str())
        })
    }

    /// The name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The whole report, with ANSI colours if `colour`.
    pub fn render(&self, colour: bool) -> String {
        let renderer = if colour {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&renderer.render(&[self.group(problem)]));
            out.push_str("\n\n");
        }
        let plural = if self.count() == 1 { "" } else { "s" };
        out.push_str(&format!("{}: {} problem{plural}", self.file, self.count()));
        out
    }

    fn group<'a>(&'a self, problem: &'a Problem) -> Group<'a> {
        let title = Level::ERROR.primary_title(problem.title.as_str());
        // The whole file is at fault, or there is none to show.
        let mut group = if self.covered.is_empty() || problem.span == (0..0) {
            Group::with_title(title).element(annotate_snippets::Origin::path(self.file.as_str()))
        } else {
            let mut annotation = AnnotationKind::Primary.span(self.visible(&problem.span));
            if !problem.label.is_empty() {
                annotation = annotation.label(problem.label.as_str());
            }
            let snippet = Snippet::source(self.covered.as_str())
                .path(self.file.as_str())
                .annotation(annotation);
            Group::with_title(title).element(snippet)
        };
        if !problem.help.is_empty() {
            group = group.element(Level::HELP.message(problem.help.as_str()));
        }
        group
    }

    /// The part of a span that lies on its first line, within the text and between characters.
    fn visible(&self, span: &Span) -> Span {
        let text = self.covered.as_str();
        let start = floor_boundary(text, span.start.min(text.len()));
        let end = floor_boundary(text, span.end.clamp(start, text.len()));
        let line_end = text[start..end].find('\n').map_or(end, |at| start + at);
        start..line_end
    }

    fn line_and_column(&self, at: usize) -> (usize, usize) {
        let at = floor_boundary(&self.covered, at.min(self.covered.len()));
        let before = &self.covered[..at];
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |tail| tail.chars().count())
            + 1;
        (line, column)
    }
}

fn floor_boundary(text: &str, mut at: usize) -> usize {
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl fmt::Debug for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}
