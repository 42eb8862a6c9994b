package storage

import (
	"fmt"
	"slices"
)

// HeadLink places a head in the chain of its vault. Body is whatever the store
// that keeps the chain needs to find the head again.
type HeadLink[T any] struct {
	ID, Prev HeadID
	Seq      uint64
	Epoch    uint32
	Body     T
}

// LinkOf returns the link of a head.
func LinkOf[T any](s SignedHead, body T) HeadLink[T] {
	return HeadLink[T]{ID: s.ID, Prev: s.Prev, Seq: s.Seq, Epoch: s.Epoch, Body: body}
}

// HeadChain decides which heads of a vault stand. Numbers rise along it and
// epochs never fall; neighbours whose numbers follow each other are linked by
// hash. It is what every HeadStore keeps; it does no input or output and is not
// safe for concurrent use. The zero value is empty.
type HeadChain[T any] struct {
	links []HeadLink[T]
	forks []HeadLink[T]
}

// HeadVerdict says what becomes of a head.
type HeadVerdict int

// The verdicts of HeadChain.Judge.
const (
	HeadSkipped HeadVerdict = iota // known, or older than all that is kept
	HeadPlaced                     // belongs to the chain
	HeadFork                       // contradicts the chain: evidence
)

// Links returns the chain, oldest first. The caller does not change it.
func (c *HeadChain[T]) Links() []HeadLink[T] { return c.links }

// Forks returns the heads that contradict the chain or were superseded.
func (c *HeadChain[T]) Forks() []HeadLink[T] { return c.forks }

// Newest returns the end of the chain that one answer of Heads holds: at most
// MaxHeadLinks links of together at most MaxHeadLinkBytes, and at least one if
// there is any. size tells the bytes of a head.
func (c *HeadChain[T]) Newest(size func(T) int) []HeadLink[T] {
	from, total := len(c.links), 0
	for from > 0 && len(c.links)-from < MaxHeadLinks {
		total += size(c.links[from-1].Body)
		if total > MaxHeadLinkBytes && from < len(c.links) {
			break
		}
		from--
	}
	return c.links[from:]
}

// Below returns the heads of chain and forks below a place, from the newest to
// the oldest, as one answer of HeadHistory holds them.
func (c *HeadChain[T]) Below(below HeadCursor, size func(T) int) []HeadLink[T] {
	all := make([]HeadLink[T], 0, c.Len())
	for _, l := range slices.Concat(c.links, c.forks) {
		if below.IsZero() || l.cursor().Compare(below) < 0 {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b HeadLink[T]) int { return b.cursor().Compare(a.cursor()) })
	total := 0
	for i, l := range all {
		if total += size(l.Body); i == MaxHeadLinks || i > 0 && total > MaxHeadLinkBytes {
			return all[:i]
		}
	}
	return all
}

func (l HeadLink[T]) cursor() HeadCursor { return HeadCursor{l.Seq, l.ID} }

// Len counts all heads kept.
func (c *HeadChain[T]) Len() int { return len(c.links) + len(c.forks) }

// Judge says what would become of a head, and changes nothing. With HeadFork
// comes ErrHeadFork; ErrStaleEpoch comes with HeadSkipped.
func (c *HeadChain[T]) Judge(l HeadLink[T]) (HeadVerdict, error) {
	if c.knows(l.ID) {
		return HeadSkipped, nil
	}
	if len(c.links) == 0 {
		return HeadPlaced, nil
	}
	tip := c.links[len(c.links)-1]
	at := c.position(l.Seq)
	switch {
	case l.Epoch > tip.Epoch:
		return HeadPlaced, nil // supersedes whatever it contradicts
	case c.contradicts(l, at) && l.Epoch == tip.Epoch:
		return HeadFork, fmt.Errorf("head %d: %w", l.Seq, ErrHeadFork)
	case c.contradicts(l, at), at == len(c.links) && l.Epoch < tip.Epoch:
		return HeadSkipped, fmt.Errorf("head %d of epoch %d, known %d: %w", l.Seq, l.Epoch, tip.Epoch, ErrStaleEpoch)
	case at == 0:
		return HeadSkipped, nil // older than all that is kept
	case at < len(c.links) && (l.Epoch > c.links[at].Epoch || l.Epoch < c.links[at-1].Epoch):
		return HeadSkipped, fmt.Errorf("head %d of epoch %d between others: %w", l.Seq, l.Epoch, ErrStaleEpoch)
	}
	return HeadPlaced, nil
}

// Place puts a head that Judge called HeadPlaced into the chain. What it
// supersedes becomes a fork.
func (c *HeadChain[T]) Place(l HeadLink[T]) {
	at := c.position(l.Seq)
	if len(c.links) > 0 && l.Epoch > c.links[len(c.links)-1].Epoch {
		if c.breaksBefore(l, at) {
			at--
		}
		c.forks = append(c.forks, c.links[at:]...)
		c.links = append(c.links[:at:at], l)
		return
	}
	c.links = slices.Insert(c.links, at, l)
}

// AddFork keeps a head as evidence.
func (c *HeadChain[T]) AddFork(l HeadLink[T]) { c.forks = append(c.forks, l) }

// Keep returns the chain with only the heads for which keep holds, and always
// the newest. keep is given with each head those that stand above it in the
// chain: what took its place. c stays as it is, and what happens to one does not
// touch the other.
func (c *HeadChain[T]) Keep(keep func(l HeadLink[T], above []HeadLink[T]) bool) HeadChain[T] {
	var out HeadChain[T]
	for i, l := range c.links {
		if i == len(c.links)-1 || keep(l, c.links[i+1:]) {
			out.links = append(out.links, l)
		}
	}
	for _, l := range c.forks {
		if keep(l, c.links[c.firstAbove(l):]) {
			out.forks = append(out.forks, l)
		}
	}
	return out
}

// firstAbove returns where the links begin that have a higher epoch than a fork:
// what superseded it, if it was not refused from the beginning.
func (c *HeadChain[T]) firstAbove(fork HeadLink[T]) int {
	at := slices.IndexFunc(c.links, func(l HeadLink[T]) bool { return l.Epoch > fork.Epoch })
	if at < 0 {
		return len(c.links)
	}
	return at
}

// Clone returns a copy of the chain.
func (c *HeadChain[T]) Clone() HeadChain[T] {
	return HeadChain[T]{links: slices.Clone(c.links), forks: slices.Clone(c.forks)}
}

func (c *HeadChain[T]) knows(id HeadID) bool {
	same := func(l HeadLink[T]) bool { return l.ID == id }
	return slices.ContainsFunc(c.links, same) || slices.ContainsFunc(c.forks, same)
}

// position returns where a head with this number belongs.
func (c *HeadChain[T]) position(seq uint64) int {
	at, _ := slices.BinarySearchFunc(c.links, seq, func(l HeadLink[T], seq uint64) int {
		switch {
		case l.Seq < seq:
			return -1
		case l.Seq > seq:
			return 1
		}
		return 0
	})
	return at
}

// contradicts reports whether l, which is not in the chain, cannot stand
// together with what is there at its place.
func (c *HeadChain[T]) contradicts(l HeadLink[T], at int) bool {
	if at < len(c.links) {
		next := c.links[at]
		if next.Seq == l.Seq || (next.Seq == l.Seq+1 && next.Prev != l.ID) {
			return true
		}
	}
	return c.breaksBefore(l, at)
}

// breaksBefore reports whether l follows another head than the one before it.
func (c *HeadChain[T]) breaksBefore(l HeadLink[T], at int) bool {
	return at > 0 && c.links[at-1].Seq+1 == l.Seq && c.links[at-1].ID != l.Prev
}

// CheckLinks verifies that raw heads are consecutive links of one vault, within
// the bounds of PutHeads, and returns them parsed.
func CheckLinks(raw [][]byte) ([]SignedHead, error) {
	if len(raw) == 0 || len(raw) > MaxPutHeads {
		return nil, fmt.Errorf("%w: %d heads at once, want 1 to %d", ErrCorrupt, len(raw), MaxPutHeads)
	}
	total := 0
	heads := make([]SignedHead, len(raw))
	for i, b := range raw {
		if total += len(b); total > MaxPutHeadBytes {
			return nil, fmt.Errorf("%w: more than %d bytes of heads at once", ErrCorrupt, MaxPutHeadBytes)
		}
		head, err := ParseHead(b)
		if err != nil {
			return nil, err
		}
		if i > 0 && !head.Follows(heads[i-1]) {
			return nil, fmt.Errorf("head %d after head %d: %w", head.Seq, heads[i-1].Seq, ErrHeadGap)
		}
		heads[i] = head
	}
	return heads, nil
}
