package repair

import (
	"bytes"
	"slices"
	"time"

	"gotong/storage"
)

const (
	// RoundSegments is how many segments one question of a round is about, and
	// how many a round looks at while they are few.
	RoundSegments = storage.MaxHave
	// sweepPart of the grace is how long it takes at most to look at all.
	sweepPart = 4
)

// batches returns how many times RoundSegments a round looks at, so that all of
// total are seen within a part of the grace; all of them in a hurry.
func batches(total int, interval, grace time.Duration, hurry bool) int {
	all := (total + RoundSegments - 1) / RoundSegments
	rounds := max(1, int(grace/sweepPart/interval))
	if hurry {
		rounds = 1
	}
	return max(1, (all+rounds-1)/rounds)
}

// slice returns the next limit ids after a cursor in the order of ids, going on
// from the beginning after the last, each once. It sorts ids.
func slice(ids []storage.SegmentID, after storage.SegmentID, limit int) []storage.SegmentID {
	slices.SortFunc(ids, compareIDs)
	ids = slices.Compact(ids)
	at, found := slices.BinarySearchFunc(ids, after, compareIDs)
	if found {
		at++
	}
	if limit >= len(ids) {
		at = min(at, len(ids))
		return slices.Concat(ids[at:], ids[:at])
	}
	out := slices.Clone(ids[min(at, len(ids)):min(at+limit, len(ids))])
	return append(out, ids[:limit-len(out)]...)
}

func compareIDs(a, b storage.SegmentID) int { return bytes.Compare(a[:], b[:]) }
