package vault

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"
)

// AloneBytes says what only one snapshot needs.
type AloneBytes struct {
	ID      SnapshotID
	Created time.Time
	// Sealed are the bytes of the blobs to which no other snapshot refers,
	// compressed and sealed: what forgetting it lets a prune free. Stored is what
	// they take with redundancy, by the packs in which they are.
	Sealed, Stored uint64
}

// Alone finds out, of each snapshot, what it alone needs; oldest first. It reads
// the listings of all snapshots, each at most twice, and keeps eight bytes in
// memory for each blob. Errors: seal.ErrNoReadKey; ErrUnreadable with the
// snapshot, because without its listings nobody knows what others share with it.
func (v *Vault) Alone(ctx context.Context) ([]AloneBytes, error) {
	snapshots, err := v.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	w, err := v.newWalk(ctx)
	if err != nil {
		return nil, err
	}
	defer w.close()
	rows := map[uint32]segmentRow{}
	err = v.index.eachSegmentInBatches(ctx, 0, func(row segmentRow) bool {
		row.holders = nil
		rows[row.number] = row
		return true
	})
	if err != nil {
		return nil, err
	}
	out := make([]AloneBytes, len(snapshots))
	w.users = &users{alone: func(user uint32, at location, more bool) {
		row := rows[at.segment]
		sealed := uint64(at.sealed)
		stored := sealed * uint64(max(row.n, 1)) / uint64(max(row.k, 1))
		if !more { // the same as was added
			sealed, stored = -sealed, -stored
		}
		out[user].Sealed += sealed
		out[user].Stored += stored
	}}
	for i, s := range snapshots {
		out[i].ID, out[i].Created = s.ID, s.Created
		w.users.now = uint32(i)
		if err := w.snapshot(s.Root, &numberSet{}); err != nil {
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, s.ID.Short(), err)
		}
	}
	return out, nil
}

// users tells of blobs and of objects who refers to them: nobody, one snapshot,
// or several.
type users struct {
	now   uint32 // the snapshot that is walked
	alone func(user uint32, at location, more bool)

	blobs  userMarks
	walked [2][maxRefDepth + 1]userMarks
}

// several stands for more than one snapshot.
const several = math.MaxUint32

// met takes in that the snapshot refers to a blob.
func (u *users) met(at location) {
	before, known := u.blobs.add(at.segment, at.offset, u.now)
	switch {
	case !known:
		u.alone(u.now, at, true)
	case before != u.now && before != several:
		u.alone(before, at, false)
	}
}

// enter reports whether what an object refers to is to be met: by the first
// snapshot, and by the second one, after which all of it is used by several.
func (u *users) enter(as int, depth int, at location) bool {
	before, known := u.walked[as][depth].add(at.segment, at.offset, u.now)
	return !known || before != u.now && before != several
}

// userMarks has the users of blobs by where these are.
type userMarks map[uint32][]userMark

type userMark struct{ offset, user uint32 }

// add notes a user and returns who was known before.
func (m *userMarks) add(segment, offset, user uint32) (before uint32, known bool) {
	if *m == nil {
		*m = userMarks{}
	}
	marks := (*m)[segment]
	at, found := slices.BinarySearchFunc(marks, offset, func(mark userMark, offset uint32) int { return cmp.Compare(mark.offset, offset) })
	if !found {
		(*m)[segment] = slices.Insert(marks, at, userMark{offset, user})
		return 0, false
	}
	if before = marks[at].user; before != user {
		marks[at].user = several
	}
	return before, true
}
