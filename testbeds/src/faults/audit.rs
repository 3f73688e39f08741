//! What `hitless audit` says of the captures of one trial: the command itself, as an operator would
//! give it, with what each member was granted.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::LabError;
use crate::gateway;
use crate::process::Program;

/// How the command ends the name of what two members that cannot hear each other cannot know of each
/// other: which Message ID the other one has used. Whoever loses tells the peer nothing after it has
/// stepped down.
const OF_A_SPLIT: &str = "-of-a-split";

/// What the command is given.
#[derive(Clone, Debug)]
pub struct Question {
    pub binary: PathBuf,
    /// What each member sent.
    pub captures: [PathBuf; 2],
    /// And was granted; not known of others.
    pub ledgers: Option<[PathBuf; 2]>,
}

/// What it answered.
#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    clean: bool,
    conclusive: bool,
    faults: Vec<Finding>,
    notes: Vec<String>,
    /// The exit status that CI would see.
    #[serde(skip)]
    status: Option<i32>,
}

#[derive(Deserialize, Clone, PartialEq, Eq, Debug)]
struct Finding {
    kind: String,
    count: u64,
    examples: Vec<String>,
}

impl Question {
    /// About what these members sent; `name` is that of the captures.
    pub fn about(binary: &Path, directory: &Path, name: &str) -> Question {
        let own = |end: &str| directory.join(format!("{name}-{end}.pcap"));
        Question {
            binary: binary.to_owned(),
            captures: [own("m1"), own("m2")],
            ledgers: None,
        }
    }

    /// Members that write down what they are granted.
    pub fn with_ledgers(mut self, directory: &Path) -> Question {
        let own = |member: &str| gateway::grants(&directory.join(member));
        self.ledgers = Some([own("m1"), own("m2")]);
        self
    }

    pub fn ask(&self) -> Result<Verdict, LabError> {
        let shown = |path: &PathBuf| path.display().to_string();
        let mut words = vec![shown(&self.binary)];
        words.extend(["audit", "--json", "--together"].map(str::to_owned));
        words.extend(self.captures.iter().map(shown));
        for ledger in self.ledgers.iter().flatten() {
            words.extend(["--member-ledger".to_owned(), shown(ledger)]);
        }
        let (status, said) = Program::new(words).judge()?;
        Verdict::read(&said, status).map_err(|detail| LabError::Unreadable {
            what: "what hitless audit says".to_owned(),
            detail,
        })
    }
}

impl Verdict {
    fn read(said: &str, status: Option<i32>) -> Result<Verdict, String> {
        let verdict: Verdict =
            serde_json::from_str(said).map_err(|error| format!("{error} in {said:?}"))?;
        Ok(Verdict { status, ..verdict })
    }

    /// What ought not to be; nothing if the command was content.
    pub fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self
            .faults
            .iter()
            .filter(|fault| !fault.is_of_a_split())
            .map(|fault| {
                let example = fault.examples.first().map_or("", String::as_str);
                format!("{} {} ({example})", fault.count, fault.kind)
            })
            .collect();
        if !self.conclusive {
            problems.push(format!(
                "not all could be judged: {}",
                self.notes.join("; ")
            ));
        }
        // Whoever reads the status alone is told the same.
        let expected = match (self.clean, self.conclusive) {
            (true, true) => 0,
            (false, _) => 1,
            (true, false) => 3,
        };
        let agrees = self.clean == self.faults.is_empty() && self.status == Some(expected);
        if !agrees {
            let status = self.status;
            problems.push(format!(
                "exit status {status:?} where it says something else"
            ));
        }
        problems
    }

    /// What was found and is no problem where there may be a split, which this does not know.
    pub fn of_a_split(&self) -> Vec<String> {
        let found = self.faults.iter().filter(|fault| fault.is_of_a_split());
        found
            .map(|fault| format!("{} {}", fault.count, fault.kind))
            .collect()
    }
}

impl Finding {
    fn is_of_a_split(&self) -> bool {
        self.kind.ends_with(OF_A_SPLIT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kinds: &[&str], conclusive: bool, status: i32) -> Verdict {
        let faults: Vec<String> = kinds
            .iter()
            .map(|kind| format!(r#"{{"kind":"{kind}","count":2,"examples":["SPI 1"]}}"#))
            .collect();
        let text = format!(
            r#"{{"clean":{},"conclusive":{conclusive},"frames":9,"faults":[{}],"notes":["no ESP"]}}"#,
            kinds.is_empty(),
            faults.join(",")
        );
        Verdict::read(&text, Some(status)).unwrap()
    }

    #[test]
    fn only_a_verdict_without_faults_and_doubts_is_clean() {
        assert!(verdict(&[], true, 0).problems().is_empty());
        let repeated = verdict(&["repeated-number"], true, 1);
        assert_eq!(repeated.problems(), ["2 repeated-number (SPI 1)"]);
        let doubtful = verdict(&[], false, 3);
        assert_eq!(doubtful.problems(), ["not all could be judged: no ESP"]);
        assert!(Verdict::read("", Some(2)).is_err());
        // A command that prints a fault and exits with 0 would be no good in CI.
        assert!(!verdict(&[], true, 1).problems().is_empty());
        assert_eq!(verdict(&["repeated-iv"], true, 0).problems().len(), 2);
    }

    #[test]
    fn a_split_excuses_message_ids_and_nothing_else() {
        let found = [
            "two-requests-of-a-split",
            "two-requests",
            "repeated-number",
            "sent-without-a-grant",
        ];
        let split = verdict(&found, true, 1);
        assert_eq!(split.problems().len(), 3);
        assert_eq!(split.of_a_split(), ["2 two-requests-of-a-split"]);
    }
}
