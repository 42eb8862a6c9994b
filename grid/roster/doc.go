// Package roster keeps the signed statements that say who belongs to a grid,
// and the signed records in which each peer says how to reach it.
//
// There is no certificate authority and no shared secret. A roster is a set of
// statements that only grows: genesis founds the grid, admit and device bring
// peers in, remove takes a peer or an owner out for good. Admit and remove are
// written by peers; each author's statements are numbered and chained by hash.
// Who is a member is a pure function of that set (Evaluate): two peers that
// hold the same statements agree, in whatever order they learnt them.
//
// What decides:
//
//   - A statement counts when its author is admitted, everything before it in
//     its chain is here, and no removal cut it off.
//   - Two different statements with one number: none counts from there on. The
//     author is forked until it is admitted again with a higher author epoch,
//     in which it starts a new chain.
//   - A removal names the last statement of the removed author that still
//     counts, by number and by hash, so a removed author can neither back-date
//     nor undo what it wrote by forking. Of two removals the lower one counts.
//   - Removals are applied one at a time: those of authors nearer to the
//     genesis first, then by PeerID, epoch and number. A removal that an
//     earlier one cut off does not count.
//   - Admins may remove, and so may the peer whose invitation the removed one
//     accepted, a peer itself, and a sibling device with the admin capability.
//     The genesis owner and its peers can be removed by that owner's peers only.
//   - A peer has to consent, by its own signature, to its owner and to its
//     inviter; nobody becomes the inviter of a stranger's peer by admitting it
//     once more.
//
// Merge is durable when it returns. A torn write at the end of the file is cut
// off on the next Open; damage elsewhere is ErrCorrupt, because dropping own
// statements silently would make their author fork.
package roster
