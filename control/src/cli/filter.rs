//! `--filter KEY=VALUE`, for traces and captures.

use clap::Args;

use super::Failure;
use crate::api::WatchFilter;

/// Which packets are watched.
#[derive(Args, Debug)]
pub struct FilterOptions {
    /// Only these packets: sa=NAME|SPI, port=NAME; may be given for each
    #[arg(long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<String>,
}

impl FilterOptions {
    /// The filter, if every word is one.
    pub fn parse(&self) -> Result<WatchFilter, Failure> {
        let mut filter = WatchFilter::default();
        for text in &self.filters {
            let place = match text.split_once('=') {
                Some(("sa", _)) => &mut filter.sa,
                Some(("port", _)) => &mut filter.port,
                _ => {
                    return Err(Failure::usage(format!(
                        "--filter {text}: write sa=NAME, sa=SPI or port=NAME"
                    )));
                }
            };
            let value = text.split_once('=').map(|(_, value)| value.to_owned());
            if place.is_some() {
                return Err(Failure::usage(format!(
                    "--filter {text}: a second one of its kind"
                )));
            }
            *place = value;
        }
        Ok(filter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(filters: &[&str]) -> Result<WatchFilter, Failure> {
        let filters = filters.iter().map(|text| (*text).to_owned()).collect();
        FilterOptions { filters }.parse()
    }

    #[test]
    fn a_filter_is_an_sa_or_a_port_or_both() {
        let both = parse(&["sa=office.net", "port=outside"]).unwrap();
        assert_eq!(both.sa.as_deref(), Some("office.net"));
        assert_eq!(both.port.as_deref(), Some("outside"));
        assert_eq!(parse(&[]).unwrap(), WatchFilter::default());
        for wrong in [&["office"] as &[&str], &["spi=1"], &["sa=a", "sa=b"]] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
