// Package repair keeps segments healthy while their owners are away, without
// any key: it finds out which shards are lost, decides who rebuilds them, and
// has them rebuilt; it audits what others keep, reads again what this peer
// keeps, and hands shards over before a peer leaves or gives less.
//
// Every peer runs the same loop for what it holds and for what its own vault
// needs. There is no coordinator: Judge and Turn are pure functions of what a
// peer sees, and two peers who see different things only make duplicates.
//
// What hangs on what:
//
//   - Nothing is deleted because nobody answered. A shard that a signed
//     deletion names is never rebuilt: missed deletions are fetched before a
//     segment is judged.
//   - A shard is lost at once when its holder says so, failed an audit of it, or
//     is no member any more; when its holder only does not answer, after the
//     grace, counted from when it was last seen.
//   - A copy of a shard that another holder has too is let go only while that one
//     proves, again and again, that it has it, and is taken back until the end.
//   - Everything is bounded: segments looked at in one round, rebuilds at
//     once, bytes each second, what is remembered of each peer.
//
// A round asks a bounded slice of the segments (RoundSegments), so a peer that
// holds 100,000 shards looks at all of them within a quarter of the grace, or
// faster when a member is gone; a round then costs each of the other holders
// one question with about 50 bytes for each segment and an answer of 100 to
// 300, and this peer about 10 MB of memory. After somebody came back who had been
// given up, one sweep asks every member.
package repair
