//! A message in pieces: credit, being told, giving up on either side.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Shard, explore, shard};
use crate::error::SendError;
use crate::hub::credit::Credit;
use crate::hub::ticket::Ticket;
use crate::hub::waker::ConnectionWaker;
use crate::hub::{Address, ConnectionId, Envelope, Hub, MessageWriter, Node};
use crate::sync::thread;

/// A stream to a connection of the shard, and what that connection keeps of it.
fn stream(limit_bytes: usize) -> (MessageWriter<[u8]>, Arc<Credit>, Shard<Envelope>) {
    let (mailbox, shard) = shard(8, 1000);
    let node = Node::random();
    let address = Address::new(1, 2);
    let credit =
        Credit::new(ConnectionWaker::new(address, Arc::clone(mailbox.doorbell())), limit_bytes);
    let hub = Hub::new(node, Box::new([mailbox]), Box::default(), HashMap::new());
    let stream = MessageWriter::new(hub, ConnectionId::new(node, 0, address), Arc::clone(&credit));
    (stream, credit, shard)
}

/// The tickets of the pieces that are there after a sleep.
fn tickets(shard: &mut Shard<Envelope>) -> Vec<Ticket> {
    let ticket = |envelope| match envelope {
        Envelope::Piece { ticket, .. } => ticket,
        other => unreachable!("only pieces were sent: {other:?}"),
    };
    shard.turn(Envelope::size).into_iter().map(ticket).collect()
}

#[test]
fn who_is_told_of_a_piece_may_send_the_next_one_at_once() {
    explore("credit comes before the news", || {
        let (mut stream, _credit, mut shard) = stream(10);
        let writer = thread::spawn(move || {
            for _ in 0..2 {
                assert_eq!(stream.write_async(&[7; 10]).wait(), Ok(()));
            }
            assert_eq!(stream.buffered_bytes(), 0);
            assert_eq!(stream.finish(), Ok(()));
        });
        let mut settled_count = 0;
        while settled_count < 3 {
            for ticket in tickets(&mut shard) {
                ticket.settle(Ok(()));
                settled_count += 1;
            }
        }
        writer.join().expect("a writer");
    });
}

#[test]
fn what_is_on_its_way_stays_within_the_credit_and_all_of_it_comes_back() {
    explore("credit is bounded", || {
        let (mut stream, credit, mut shard) = stream(8);
        let writer = thread::spawn(move || {
            let mut sent_count = 0;
            for _ in 0..3 {
                match stream.write(&[7; 5]) {
                    Ok(()) => sent_count += 1,
                    Err(error) => assert_eq!(error, SendError::Overloaded),
                }
                assert!(stream.buffered_bytes() <= 8, "{} bytes", stream.buffered_bytes());
            }
            assert_eq!(stream.finish(), Ok(()));
            sent_count
        });
        let mut ticket_count = 0;
        for ticket in tickets(&mut shard) {
            ticket.settle(Ok(()));
            ticket_count += 1;
        }
        let sent_count = writer.join().expect("a writer");
        while ticket_count < sent_count + 1 {
            for ticket in tickets(&mut shard) {
                ticket.settle(Ok(()));
                ticket_count += 1;
            }
        }
        assert!(!credit.is_abandoned());
    });
}

#[test]
fn a_stream_that_is_dropped_unfinished_rings_until_it_is_heard() {
    explore("an abandoned stream", || {
        let (mut stream, credit, mut shard) = stream(10);
        let writer = thread::spawn(move || stream.write(&[7; 5]));
        while !credit.is_abandoned() {
            // The bell stands for no envelope; pieces are looked at in any case.
            tickets(&mut shard).into_iter().for_each(|ticket| ticket.settle(Ok(())));
            while shard.inbox.take_woken().is_some() {}
        }
        assert_eq!(writer.join().expect("a writer"), Ok(()));
    });
}

#[test]
fn who_is_told_that_the_connection_has_gone_sends_it_nothing_more() {
    explore("a connection that has gone", || {
        let (mut stream, credit, mut shard) = stream(10);
        let writer = thread::spawn(move || {
            assert_eq!(stream.write_async(&[7; 5]).wait(), Err(SendError::Gone));
            assert_eq!(stream.write(&[7; 5]), Err(SendError::Gone));
        });
        // As `release_slot` does it: the stream ends, then what is queued is given up.
        let tickets = tickets(&mut shard);
        credit.end();
        assert_eq!(tickets.len(), 1);
        tickets.into_iter().for_each(|ticket| ticket.settle(Err(SendError::Gone)));
        writer.join().expect("a writer");
    });
}

#[test]
fn a_piece_that_a_shard_leaves_behind_when_it_ends_is_told_to_its_writer() {
    explore("a shard that ends with pieces", || {
        let (mut stream, _credit, shard) = stream(10);
        let writer = thread::spawn(move || {
            assert_eq!(stream.write_async(&[7; 5]).wait(), Err(SendError::ShuttingDown));
        });
        shard.inbox.mailbox().close();
        drop(shard);
        writer.join().expect("a writer");
    });
}
