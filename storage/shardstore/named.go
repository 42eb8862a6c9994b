package shardstore

import (
	"bytes"
	"cmp"
	"slices"

	"gotong/storage"
)

// namedBytes is how much of a segment's id is kept. Ids are hashes, so two that
// begin alike are made by somebody on purpose; and a match counts only in the
// vault of the deletion, where the owner could as well have named the other.
const namedBytes = 16

// named is one segment that a deletion of a vault names.
type named struct {
	id    [namedBytes]byte
	vault uint32
}

func (a named) compare(b named) int {
	return cmp.Or(bytes.Compare(a.id[:], b.id[:]), cmp.Compare(a.vault, b.vault))
}

func nameOf(id storage.SegmentID, vault uint32) named { return named{[namedBytes]byte(id[:]), vault} }

// namedList is the segments that all deletions name, in order: 20 bytes for each.
type namedList []named

// has reports whether a deletion of a vault names a segment.
func (l namedList) has(id storage.SegmentID, vault uint32) bool {
	_, found := slices.BinarySearchFunc(l, nameOf(id, vault), named.compare)
	return found
}

// hasAny reports whether a deletion of any vault names a segment.
func (l namedList) hasAny(id storage.SegmentID) bool {
	at, _ := slices.BinarySearchFunc(l, nameOf(id, 0), named.compare)
	return at < len(l) && l[at].id == [namedBytes]byte(id[:])
}

// merge adds the segments of one deletion, which rise, in their place.
func (l namedList) merge(ids []storage.SegmentID, vault uint32) namedList {
	add := make([]named, 0, len(ids))
	for _, id := range ids {
		if n := nameOf(id, vault); !l.has(id, vault) && (len(add) == 0 || add[len(add)-1] != n) {
			add = append(add, n)
		}
	}
	old := len(l)
	l = append(l, add...)
	// From the end to the front: what is moved is never overwritten.
	for from, to := old-1, len(l)-1; len(add) > 0; to-- {
		last := add[len(add)-1]
		if from >= 0 && l[from].compare(last) > 0 {
			l[to], from = l[from], from-1
			continue
		}
		l[to], add = last, add[:len(add)-1]
	}
	return l
}

// sorted brings a list in order that was only appended to.
func (l namedList) sorted() namedList {
	slices.SortFunc(l, named.compare)
	return slices.Clip(slices.Compact(l))
}
