//! All buyers at once, their progress bar, and what became of them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;

use crate::cli::DemoArgs;
use crate::demo::Sale;
use crate::demo::buyer::{Buyer, End, Experience, Habit};
use crate::demo::http::Http;

/// What became of the crowd.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) bought: u64,
    pub(super) sold_out: u64,
    pub(super) abandoned: u64,
    pub(super) double_clicks: u64,
    pub(super) late: u64,
    pub(super) cancelled: u64,
    pub(super) lost_seats: u64,
    pub(super) unexpected: u64,
}

impl Tally {
    fn add(&mut self, experience: &Experience, end: &Result<End>) {
        self.double_clicks += experience.double_clicks;
        self.late += experience.late;
        self.cancelled += experience.cancelled;
        self.lost_seats += experience.lost_seats;
        match end {
            Ok(End::Bought) => self.bought += 1,
            Ok(End::SoldOut) => self.sold_out += 1,
            Ok(End::Abandoned) => self.abandoned += 1,
            Err(error) => {
                tracing::error!("a buyer met the unexpected: {error:#}");
                self.unexpected += 1;
            }
        }
    }
}

/// Sends everyone at once and waits until the last has left.
pub(super) async fn run(http: Arc<Http>, args: DemoArgs, hold_seconds: u32, sale: Sale) -> Result<Tally> {
    let style = ProgressStyle::with_template(
        "{elapsed_precise} {bar:40.cyan/blue} {pos}/{len} people through, {msg}",
    )?;
    let bar = ProgressBar::new(u64::from(args.buyers)).with_style(style).with_message("0 bought");
    bar.enable_steady_tick(Duration::from_millis(200));
    let mut buyers = JoinSet::new();
    for number in 0..args.buyers {
        let buyer = Buyer::new(http.clone(), sale, hold_seconds, Habit::of(number));
        buyers.spawn(buyer.go());
    }
    let mut tally = Tally::default();
    while let Some(gone) = buyers.join_next().await {
        let (experience, end) = gone?;
        tally.add(&experience, &end);
        bar.inc(1);
        bar.set_message(format!("{} bought", tally.bought));
    }
    bar.finish();
    Ok(tally)
}
