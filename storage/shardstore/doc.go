// Package shardstore keeps shards, heads and deletions on this peer's disk.
//
// A shard is one self-describing file, shards/<2 hex>/<segment>.<index>: a page
// with the signed header of its segment, a page with the holder list, the bytes
// themselves. The catalogue in memory is built by reading the first pages, so
// there is no index that could be wrong or lost. docs/format.md specifies every
// byte.
//
// What a caller may rely on:
//
//   - When Commit or PutHeads returned nil, the data is on the disk: a power
//     cut does not take it away. Bytes that do not match the root in the
//     header are never stored.
//   - After a stop at any instant the next Open finds every acknowledged shard,
//     and nothing of those that were not finished.
//   - A shard that was altered, cut off or swapped on disk is noticed when it
//     is opened, read to its end, or verified. It is then set aside in bad/ and
//     never served; a new copy may be stored in its place.
//   - A failed sync is not tried again: what was being written counts as lost,
//     and the store takes nothing more until it is opened again, because a
//     disk that failed once may have dropped what it confirmed before.
//   - When PutDeletions returned nil, the deletions are on the disk and nothing
//     of what they name is stored: it is in the trash, readable, until the floor
//     in its own header has passed in running time. It is never taken again.
//   - Of an owner who was given up no shard is taken, after a restart neither,
//     until the donor says otherwise.
//   - Heads within their floor are never dropped for newer ones.
//   - Quota and pledge, in which the trash counts, are kept by the write path; a
//     full disk refuses new shards and hurts none that are stored.
//
// Only one process has a store open. All methods are safe for concurrent use.
package shardstore
