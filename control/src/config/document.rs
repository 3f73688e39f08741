//! Reading a TOML table key by key, with positions.
//!
//! A [`Section`] remembers which keys were asked for; what is left at the end is unknown, and the
//! asked-for keys are what a typo is compared with. So a key is declared by reading it, once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::report::{Problems, Refusal, Span};
use super::suggest::nearest;
use super::value::{found, quoted};

/// A value and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Located<T> {
    pub span: Span,
    pub value: T,
}

impl<T> Deref for Located<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.value
    }
}

/// Something was there, was wrong, and was reported.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refused;

/// Turns a TOML value into what is meant by it.
pub(super) trait Parse<T>: Fn(&DeValue<'_>) -> Result<T, Refusal> {}
impl<T, F: Fn(&DeValue<'_>) -> Result<T, Refusal>> Parse<T> for F {}

/// Keys with their places, and their values.
type Entries<'a> = BTreeMap<&'a str, (Span, &'a Spanned<DeValue<'a>>)>;

fn entries<'a>(table: &'a DeTable<'a>) -> Entries<'a> {
    table
        .iter()
        .map(|(key, value)| (key.get_ref().as_ref(), (key.span(), value)))
        .collect()
}

/// A table that is being read.
pub(super) struct Section<'a> {
    /// `connections.office.children.net`, or empty for the whole file.
    pub path: String,
    /// The key that opens it.
    pub span: Span,
    entries: Entries<'a>,
    problems: &'a Problems,
    asked: RefCell<BTreeSet<&'static str>>,
}

impl<'a> Section<'a> {
    pub fn root(table: &'a DeTable<'a>, problems: &'a Problems) -> Section<'a> {
        Section {
            path: String::new(),
            span: 0..0,
            entries: entries(table),
            problems,
            asked: RefCell::default(),
        }
    }

    pub fn problems(&self) -> &'a Problems {
        self.problems
    }

    /// `cluster.heartbeat`.
    pub fn name(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    fn entry(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().insert(key);
        self.entries.get(key).map(|(_, value)| *value)
    }

    /// Whether the key is there at all, right or wrong.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Refuses the value of `key`, or the section if it has none.
    pub fn refuse(&self, key: &str, refusal: Refusal) {
        let span = match self.entries.get(key) {
            Some((_, value)) => value.span(),
            None => self.span.clone(),
        };
        self.problems.refuse(&span, refusal);
    }

    /// A value that may be absent, where one that is wrong must not count as absent.
    pub fn given<T>(
        &self,
        key: &'static str,
        parse: impl Parse<T>,
    ) -> Result<Option<Located<T>>, Refused> {
        let Some(value) = self.entry(key) else {
            return Ok(None);
        };
        self.read(key, value, &parse).ok_or(Refused).map(Some)
    }

    /// A value that may be absent. What is wrong is reported, and then counts as absent.
    pub fn optional<T>(&self, key: &'static str, parse: impl Parse<T>) -> Option<Located<T>> {
        self.given(key, parse).unwrap_or_default()
    }

    /// A value, or its default.
    pub fn or<T>(&self, key: &'static str, default: T, parse: impl Parse<T>) -> T {
        self.optional(key, parse).map_or(default, |v| v.value)
    }

    /// A value that must be there; `example` is how it would be written.
    pub fn required<T>(
        &self,
        key: &'static str,
        example: &str,
        parse: impl Parse<T>,
    ) -> Option<Located<T>> {
        let Some(value) = self.entry(key) else {
            self.missing(key, example);
            return None;
        };
        self.read(key, value, &parse)
    }

    /// As `given`, a list of values.
    pub fn given_list<T>(
        &self,
        key: &'static str,
        parse: impl Parse<T>,
    ) -> Result<Option<Vec<Located<T>>>, Refused> {
        let Some(value) = self.entry(key) else {
            return Ok(None);
        };
        let Some(array) = value.get_ref().as_array() else {
            let refusal = Refusal::new(
                format!(
                    "{}: expected a list, found {}",
                    self.name(key),
                    found(value.get_ref())
                ),
                "put it in square brackets, even if there is only one",
            );
            self.problems.refuse(&value.span(), refusal);
            return Err(Refused);
        };
        let read = array.iter().map(|item| self.read(key, item, &parse));
        let items: Vec<_> = read.collect();
        let items: Option<Vec<_>> = items.into_iter().collect();
        items.ok_or(Refused).map(Some)
    }

    /// A list of values that may be absent. What is wrong is reported, and then counts as absent.
    pub fn list<T>(&self, key: &'static str, parse: impl Parse<T>) -> Option<Vec<Located<T>>> {
        self.given_list(key, parse).unwrap_or_default()
    }

    /// A list that may be absent, and must have a value if it is there; `example` is one, and
    /// `what` says what to do.
    pub fn filled<T>(
        &self,
        key: &'static str,
        (what, example): (&str, &str),
        parse: impl Parse<T>,
    ) -> Result<Option<Vec<Located<T>>>, Refused> {
        let listed = self.given_list(key, parse)?;
        if listed.as_ref().is_some_and(Vec::is_empty) {
            let title = format!("{}: empty", self.name(key));
            self.refuse(key, Refusal::new(title, format!("{what}: [\"{example}\"]")));
            return Err(Refused);
        }
        Ok(listed)
    }

    /// The same of one that must be there.
    pub fn required_list<T>(
        &self,
        key: &'static str,
        (what, example): (&str, &str),
        parse: impl Parse<T>,
    ) -> Option<Vec<Located<T>>> {
        let listed = self.filled(key, (what, example), parse).ok()?;
        if listed.is_none() {
            self.missing(key, &format!("{key} = [\"{example}\"]"));
        }
        listed
    }

    /// A list of tables that may be absent, each as a section.
    pub fn tables(&self, key: &'static str, example: &str) -> Option<Vec<Section<'a>>> {
        let value = self.entry(key)?;
        let Some(array) = value.get_ref().as_array() else {
            let title = format!(
                "{}: expected a list of tables, found {}",
                self.name(key),
                found(value.get_ref())
            );
            let refusal = Refusal::new(title, format!("write {example}"));
            self.problems.refuse(&value.span(), refusal);
            return None;
        };
        let sections = array.iter().enumerate().filter_map(|(at, item)| {
            let path = format!("{}[{at}]", self.name(key));
            self.open(path, item.span(), item)
        });
        Some(sections.collect())
    }

    /// As `given`, a section within this one.
    pub fn given_section(&self, key: &'static str) -> Result<Option<Section<'a>>, Refused> {
        let section = self.section(key);
        match section.is_none() && self.has(key) {
            true => Err(Refused),
            false => Ok(section),
        }
    }

    /// A section within this one.
    pub fn section(&self, key: &'static str) -> Option<Section<'a>> {
        self.asked.borrow_mut().insert(key);
        let (span, value) = self.entries.get(key)?;
        self.open(self.name(key), span.clone(), value)
    }

    /// A section, or an empty one in its place.
    pub fn section_or_empty(&self, key: &'static str) -> Option<Section<'a>> {
        if self.has(key) {
            return self.section(key);
        }
        self.asked.borrow_mut().insert(key);
        Some(Section {
            path: self.name(key),
            span: self.span.clone(),
            entries: Entries::new(),
            problems: self.problems,
            asked: RefCell::default(),
        })
    }

    /// A section that must be there.
    pub fn required_section(&self, key: &'static str, example: &str) -> Option<Section<'a>> {
        if !self.has(key) {
            self.asked.borrow_mut().insert(key);
            self.missing_section(&self.name(key), example);
        }
        self.section(key)
    }

    /// Every section within this one with its name, in the order of the file.
    pub fn named(&self) -> Vec<(String, Section<'a>)> {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_by_key(|(_, (span, _))| span.start);
        entries
            .into_iter()
            .filter_map(|(name, (span, value))| {
                let section = self.open(self.name(name), span.clone(), value)?;
                Some(((*name).to_owned(), section))
            })
            .collect()
    }

    /// Reports every key that nobody asked for. `foreign` names keys that others know, and what to
    /// do about them here.
    pub fn finish(&self, foreign: &[(&str, &str)]) {
        let asked = self.asked.borrow();
        for (word, (span, value)) in &self.entries {
            if asked.contains(word) {
                continue;
            }
            // It may be a mistyped `secret`.
            self.problems.cover(value.span());
            let title = format!("unknown key {}", quoted(&self.name(word)));
            let help = match foreign.iter().find(|(name, _)| name == word) {
                Some((_, hint)) => (*hint).to_owned(),
                None => match nearest(word, asked.iter().copied()) {
                    Some(known) => format!("did you mean `{known}`?"),
                    None => format!(
                        "known here: {}",
                        asked.iter().copied().collect::<Vec<_>>().join(", ")
                    ),
                },
            };
            self.problems
                .report(span, "not known here", Refusal::new(title, help));
        }
    }

    /// Reports that a key is missing.
    pub fn missing(&self, key: &str, example: &str) {
        let title = format!("missing key `{}`", self.name(key));
        let label = format!("`{key}` is missing here");
        let help = format!("add {example}");
        self.problems
            .report(&self.span, &label, Refusal::new(title, help));
    }

    fn missing_section(&self, name: &str, example: &str) {
        let refusal = Refusal::new(
            format!("missing section [{name}]"),
            format!("add\n{example}"),
        );
        self.problems.refuse(&self.span, refusal);
    }

    fn open(
        &self,
        path: String,
        span: Span,
        value: &'a Spanned<DeValue<'a>>,
    ) -> Option<Section<'a>> {
        let Some(table) = value.get_ref().as_table() else {
            let refusal = Refusal::new(
                format!(
                    "{}: expected a section, found {}",
                    quoted(&path),
                    found(value.get_ref())
                ),
                format!("write [{path}] and its keys below"),
            );
            self.problems.refuse(&value.span(), refusal);
            return None;
        };
        Some(Section {
            path,
            span,
            entries: entries(table),
            problems: self.problems,
            asked: RefCell::default(),
        })
    }

    fn read<T>(
        &self,
        key: &str,
        value: &Spanned<DeValue<'_>>,
        parse: &impl Parse<T>,
    ) -> Option<Located<T>> {
        match parse(value.get_ref()) {
            Ok(parsed) => Some(Located {
                span: value.span(),
                value: parsed,
            }),
            Err(refusal) => {
                let title = format!("{}: {}", self.name(key), refusal.title);
                let refusal = Refusal::new(title, refusal.help);
                self.problems.refuse(&value.span(), refusal);
                None
            }
        }
    }
}
