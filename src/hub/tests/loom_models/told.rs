//! What became of a message: told once, and whoever waits is woken.

use super::explore;
use crate::error::SendError;
use crate::hub::ticket::Ticket;
use crate::hub::{BroadcastDelivery, BroadcastReport, Delivery};
use crate::sync::thread;

#[test]
fn a_thread_that_waits_is_told_what_the_ticket_was_settled_with() {
    explore("a delivery that is awaited", || {
        let (delivery, ticket) = Delivery::new();
        let (dropped, unsettled) = Delivery::new();
        let shard = thread::spawn(move || {
            ticket.settle(Ok(()));
            drop(unsettled);
        });
        assert_eq!(delivery.wait(), Ok(()));
        assert_eq!(dropped.wait(), Err(SendError::ShuttingDown));
        shard.join().expect("a shard");
    });
}

#[test]
fn a_broadcast_is_told_once_and_of_every_connection() {
    explore("a tally", || {
        let (delivery, tally) = BroadcastDelivery::new();
        let shards = [Ok(()), Err(SendError::Overloaded)].map(|outcome| {
            let tally = tally.clone();
            thread::spawn(move || {
                // One connection takes the quick way, another one's share is settled later.
                let share = Ticket::share(&tally);
                tally.count(Ok(()));
                drop(tally);
                share.settle(outcome);
            })
        });
        let unsettled = Ticket::share(&tally);
        drop(tally);
        drop(unsettled);
        let report = BroadcastReport { reached_count: 3, gone_count: 1, overloaded_count: 1 };
        assert_eq!(delivery.wait(), Ok(report));
        for shard in shards {
            shard.join().expect("a shard");
        }
    });
}
