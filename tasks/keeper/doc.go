// Package keeper keeps jobs alive without those who submitted them.
//
// A detached job has up to Copies keepers: peers that hold its signed plan and
// its journal. One of them drives the job, the others follow. A journal is a
// set of streams: each driver writes its records, in order, into the stream of
// its own epoch, and every keeper has a prefix of each stream. So what a keeper
// has is told by one count for each stream (Vector), what another lacks by a
// difference, and journals merge by handing over the rest of each stream.
//
// The driver hands new records to the others by Append, which also is its sign
// of life. A keeper that hears nothing for a lease asks the others (State). When
// none of them hears the driver either, it merges their journals into its own
// (Read), and the first in rendezvous order of those that answer begins the next
// epoch, at all that it reaches, before it hands out a task. A driver that
// meets a higher epoch, or the same of a lower PeerID, stops. Two drivers at
// once cost work, not results: records of both count, and of two for one task
// that of the lower epoch stands (tasks/jobs).
//
// Keepers know each other by the plan: whoever proves to know it is a keeper, or
// the owner's. Cancelling, retrying and removing take a statement signed by a
// device of the owner, which keepers pass on to each other.
package keeper
