//! What the nodes write to each other, and what must come of it.

use super::world::World;
use crate::id::Incarnation;
use crate::post::MailError;
use crate::state::MemberStatus;
use std::collections::BTreeMap;

/// A message: its sender, and the number there.
type MailKey = (Incarnation, u64);

/// All messages.
#[derive(Default)]
pub(super) struct MailTruth {
    /// The receiver and the text of each.
    sent: BTreeMap<MailKey, (Incarnation, Vec<u8>)>,
    read: BTreeMap<MailKey, ()>,
    /// Those whose sender was told that they were read, with the reader.
    told: BTreeMap<MailKey, Incarnation>,
}

impl MailTruth {
    pub(super) fn told(&mut self, key: MailKey, reader: Incarnation) {
        assert_eq!(self.sent[&key].0, reader, "another member has read it");
        if !self.read.contains_key(&key) {
            self.told.insert(key, reader);
        }
    }

    fn take(&mut self, key: MailKey, reader: Incarnation, text: &[u8]) {
        let (to, sent) = self.sent.get(&key).expect("it was sent");
        assert_eq!((*to, &sent[..]), (reader, text), "another message");
        assert_eq!(self.read.insert(key, ()), None, "read twice");
        self.told.remove(&key);
    }

    /// A member that has read all that it has got: nothing else was acknowledged.
    fn has_read_all(&self, reader: Incarnation) {
        let missed = self.told.iter().find(|(_, one)| **one == reader);
        assert_eq!(missed, None, "acknowledged, and not read");
    }
}

impl World {
    /// Now and then a node writes to another one, and reads what has come.
    pub(super) fn exchange_mail(&mut self, number: usize) {
        if self.random.one_in(6) {
            for _ in 0..1 + self.random.below(4) {
                self.send_mail(number);
            }
        }
        if !self.random.one_in(4) {
            return;
        }
        let mut count = 0;
        while let Some(node) = &mut self.nodes[number].node
            && let Some(letter) = node.take_mail()
        {
            let reader = node.me().incarnation;
            let key = (letter.from.incarnation, letter.number);
            self.mail.take(key, reader, &letter.body);
            count += 1;
        }
        (0..count).for_each(|_| self.tally("mail read"));
        if let Some(node) = &self.nodes[number].node {
            self.mail.has_read_all(node.me().incarnation);
        }
    }

    fn send_mail(&mut self, number: usize) {
        let text: Vec<u8> = (0..self.random.below(24)).map(|_| self.random.next() as u8).collect();
        let pick = self.random.next() as usize;
        let it = &mut self.nodes[number];
        let local = it.clock.local(self.now);
        let Some(node) = &mut it.node else { return };
        let me = node.me();
        let is_up = |status| status == MemberStatus::Up;
        let rows = node.state().members().iter().filter(|row| row.id != me && is_up(row.status));
        let others: Vec<_> = rows.map(|row| row.id).collect();
        let Some(to) = others.get(pick % others.len().max(1)).copied() else { return };
        match node.send(to.slot, 1, &text, local) {
            Ok(sent) => {
                self.mail.sent.insert((me.incarnation, sent), (to.incarnation, text));
                self.tally("mail sent");
            }
            Err(MailError::Full) => self.tally("mail full"),
            Err(MailError::Deaf) => self.tally("mail to a member without a beat"),
            Err(error) => panic!("{error}"),
        }
    }
}
