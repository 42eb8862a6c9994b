package keeper

import (
	"maps"
	"slices"

	"gotong/grid"
)

// Stream names the records that one driver wrote in one epoch. The zero Stream
// is that of nobody.
type Stream struct {
	Epoch  uint64
	Driver grid.PeerID
}

// Beats reports whether the driver of s goes on when it meets that of other:
// the higher epoch, of one epoch the lower PeerID.
func (s Stream) Beats(other Stream) bool {
	if s.Epoch != other.Epoch {
		return s.Epoch > other.Epoch
	}
	return s.Driver.Compare(other.Driver) < 0
}

// compare orders streams by epoch, then driver.
func (s Stream) compare(other Stream) int {
	switch {
	case s.Epoch < other.Epoch:
		return -1
	case s.Epoch > other.Epoch:
		return 1
	}
	return s.Driver.Compare(other.Driver)
}

// Vector says how many records of each stream a journal has.
type Vector map[Stream]uint64

// Records returns the number of all records.
func (v Vector) Records() (n uint64) {
	for _, count := range v {
		n += count
	}
	return n
}

// Covers reports whether v has all that other has.
func (v Vector) Covers(other Vector) bool {
	for s, count := range other {
		if v[s] < count {
			return false
		}
	}
	return true
}

// streams returns the streams in order.
func (v Vector) streams() []Stream { return slices.SortedFunc(maps.Keys(v), Stream.compare) }

// Batch is a run of records of one stream.
type Batch struct {
	Stream  Stream
	First   uint64 // place of Records[0] in the stream
	Records [][]byte
}

// batchBytes is how much one message carries, but for a single record that is
// larger.
const batchBytes = 1 << 20

// batcher collects records into batches and passes them on when there is
// enough.
type batcher struct {
	batches []Batch
	bytes   int
}

func (b *batcher) add(s Stream, place uint64, raw []byte) {
	last := len(b.batches) - 1
	if last < 0 || b.batches[last].Stream != s || b.batches[last].First+uint64(len(b.batches[last].Records)) != place {
		b.batches = append(b.batches, Batch{Stream: s, First: place})
		last++
	}
	b.batches[last].Records = append(b.batches[last].Records, raw)
	b.bytes += len(raw)
}

// full reports whether a record of so many bytes should wait for the next
// message.
func (b *batcher) full(next int) bool { return b.bytes > 0 && b.bytes+next > batchBytes }

func (b *batcher) take() []Batch {
	out := b.batches
	b.batches, b.bytes = nil, 0
	return out
}
