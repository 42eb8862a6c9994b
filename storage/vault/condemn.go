package vault

import (
	"encoding/binary"
	"errors"
	"time"

	"go.etcd.io/bbolt"
)

// ageMark says that all segments with numbers below next were there at a time.
type ageMark struct {
	unix int64
	next uint32
}

const (
	ageMarkBytes = 12
	maxAgeMarks  = 64
	ageMarkEvery = time.Hour
)

// markAge notes how far the numbers are now, so that a later prune can tell how
// old a segment is at least.
func (x *index) markAge(now time.Time) error {
	return x.update(func(tx *bbolt.Tx) error {
		marks := ageMarks(tx)
		if n := len(marks); n > 0 && marks[n-1].unix <= now.Unix() && now.Unix()-marks[n-1].unix < int64(ageMarkEvery/time.Second) {
			return nil
		}
		marks = append(marks, ageMark{now.Unix(), metaNumber(tx, keyNext)})
		if len(marks) > maxAgeMarks {
			marks = append(marks[:1], marks[2:]...) // the oldest stays, for what is very old
		}
		var b []byte
		for _, m := range marks {
			b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(b, uint64(m.unix)), m.next)
		}
		return tx.Bucket(bucketMeta).Put(keyAges, b)
	})
}

func ageMarks(tx *bbolt.Tx) (marks []ageMark) {
	b := tx.Bucket(bucketMeta).Get(keyAges)
	for ; len(b) >= ageMarkBytes; b = b[ageMarkBytes:] {
		marks = append(marks, ageMark{int64(binary.BigEndian.Uint64(b)), binary.BigEndian.Uint32(b[8:])})
	}
	return marks
}

// olderThan returns the number below which all segments were there at a time.
func olderThan(tx *bbolt.Tx, at time.Time) (below uint32) {
	for _, m := range ageMarks(tx) {
		if m.unix <= at.Unix() {
			below = max(below, m.next)
		}
	}
	return below
}

// condemn marks segments, all in one transaction, so that nothing counts on
// them from then on, and returns those that it marked. Those that the running
// session or a snapshot outside of walked needs are left out.
func (v *Vault) condemn(wanted *numberSet, walked map[SnapshotID]bool) (marked numberSet, err error) {
	v.refs.Lock()
	defer v.refs.Unlock()
	var used numberSet
	v.addUsed(&used)
	err = v.index.update(func(tx *bbolt.Tx) error {
		err := eachEntry(tx, func(_ []byte, e *entry) error {
			if !walked[e.id] {
				used.addAll(&e.segments)
			}
			return nil
		})
		if err != nil {
			return err
		}
		for number := range wanted.all() {
			if used.has(number) {
				continue
			}
			if err := flagSegment(tx, number, rowCondemned, 0); err != nil {
				return err
			}
			marked.add(number)
		}
		return tx.Bucket(bucketMeta).Put(keyCondemned, []byte{1})
	})
	return marked, err
}

// errNotCondemned: the index was made anew during a prune.
var errNotCondemned = errors.New("the index was made anew during the prune; try again")

// allCondemned returns errNotCondemned when a segment of the set is not.
func allCondemned(tx *bbolt.Tx, set *numberSet) error {
	for number := range set.all() {
		if flags, there := rowFlags(tx, number); !there || flags&rowCondemned == 0 {
			return errNotCondemned
		}
	}
	return nil
}

// pardon takes back all that was condemned and not dropped: what a prune that
// failed, or that a kill ended, left.
func (x *index) pardon() error {
	return x.update(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta.Get(keyCondemned) == nil {
			return nil
		}
		var condemned []uint32
		err := tx.Bucket(bucketSegments).ForEach(func(k, b []byte) error {
			if len(k) == 4 && len(b) >= segmentRowFixed && b[rowFlagsOffset]&rowCondemned != 0 {
				condemned = append(condemned, binary.BigEndian.Uint32(k))
			}
			return nil
		})
		for _, number := range condemned {
			if err == nil {
				err = flagSegment(tx, number, 0, rowCondemned)
			}
		}
		if err != nil {
			return err
		}
		return meta.Delete(keyCondemned)
	})
}

// sweptAtOnce is how many blobs one transaction of a sweep looks at.
const sweptAtOnce = 20_000

// sweep removes blobs whose segment was dropped, a few at a time, so that a
// session is never held up for long.
func (x *index) sweep() error {
	var from []byte
	for {
		var next []byte
		err := x.update(func(tx *bbolt.Tx) error {
			if tx.Bucket(bucketMeta).Get(keyUnswept) == nil {
				return nil
			}
			var stale [][]byte
			seen := 0
			c := tx.Bucket(bucketBlobs).Cursor()
			for k, b := c.Seek(from); k != nil; k, b = c.Next() {
				if seen++; seen > sweptAtOnce {
					next = append([]byte(nil), k...)
					break
				}
				if len(k) != 32 {
					return errIndexBroken
				}
				l, err := decodeLocation(BlobID(k), b)
				if err != nil {
					return err
				}
				if _, there := rowFlags(tx, l.segment); !there {
					stale = append(stale, append([]byte(nil), k...))
				}
			}
			for _, k := range stale {
				if err := tx.Bucket(bucketBlobs).Delete(k); err != nil {
					return err
				}
			}
			if next == nil {
				return tx.Bucket(bucketMeta).Delete(keyUnswept)
			}
			return nil
		})
		if err != nil || next == nil {
			return err
		}
		from = next
	}
}
