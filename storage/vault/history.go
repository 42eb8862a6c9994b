package vault

import (
	"context"
	"errors"
	"slices"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/segments"
)

// maxHistory bounds the heads of a vault that are looked at, more than holders
// keep.
const maxHistory = 1 << 16

// HistoricSnapshot is a snapshot as a head within its floor has it.
type HistoricSnapshot struct {
	Snapshot
	Head        uint64    // number of the newest head that has it
	HeadCreated time.Time // by the clock of the device that made it
	Forgotten   bool      // the newest head does without it

	head storage.HeadID
}

// HeadInfo says what a head is about without its catalogue.
type HeadInfo struct {
	Number    uint64
	Epoch     uint32
	Created   time.Time
	Signer    string // PeerID of the device that made it
	Snapshots uint64
	Newest    time.Time // when its newest snapshot was made; zero: none, or not known
}

// history is what the heads of a vault name, as far as holders still have it.
type history struct {
	v     *Vault
	ctx   context.Context
	heads []pastHead // newest first
	parts []pastPart // by the newest head that names them
}

type pastHead struct {
	head  storage.SignedHead
	parts []*vaultv1.PartRef
}

type pastPart struct {
	ref   *vaultv1.PartRef
	plain []byte // when the index has it
	gone  bool   // too few members have it, by what they say
	sure  bool   // and all were asked
}

// history collects the heads of the vault that this device and the reachable
// peers know. What a head says of the time is not believed: whoever took the
// device over wrote it. Holders decide by their own clocks what they keep.
func (v *Vault) history(ctx context.Context) (*history, error) {
	h := &history{v: v, ctx: ctx}
	known := map[storage.HeadID]storage.SignedHead{}
	v.mu.Lock()
	for _, link := range v.heads.links {
		known[link.ID] = link
	}
	v.mu.Unlock()
	if err := v.pageHeads(ctx, known); err != nil {
		v.log.Info("peers could not be asked for older heads", "err", err)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, head := range known {
		state, err := openHeadState(v.secrets, head.Sealed)
		if err != nil {
			v.log.Info("an older head cannot be opened", "number", head.Seq, "err", err)
			continue
		}
		h.heads = append(h.heads, pastHead{head, state.Parts})
	}
	slices.SortFunc(h.heads, func(a, b pastHead) int {
		switch {
		case a.head.Newer(b.head):
			return -1
		case b.head.Newer(a.head):
			return 1
		}
		return slices.Compare(a.head.ID[:], b.head.ID[:])
	})
	return h, h.findParts()
}

// pageHeads adds what peers keep.
func (v *Vault) pageHeads(ctx context.Context, known map[storage.HeadID]storage.SignedHead) error {
	var below storage.HeadCursor
	for len(known) < maxHistory {
		page, err := v.segments.HeadHistory(ctx, v.config.Owner, v.ID(), below)
		if err != nil || len(page) == 0 {
			return err
		}
		for _, head := range page {
			known[head.ID] = head
			below = head.Cursor()
		}
	}
	return nil
}

// findParts asks all members at once which parts are still there.
func (h *history) findParts() error {
	known, err := h.v.index.parts()
	if err != nil {
		return err
	}
	seen := map[storage.SegmentID]bool{}
	var asks []segments.Ask
	var asked []int
	for _, head := range h.heads {
		for _, ref := range head.parts {
			id := storage.SegmentID(ref.Segment)
			if seen[id] {
				continue
			}
			seen[id] = true
			part := pastPart{ref: ref}
			if at := slices.IndexFunc(known, func(p partRow) bool { return p.row.id == id }); at >= 0 {
				part.plain = known[at].plain
			} else {
				row, err := rowOfPart(ref)
				if err != nil {
					return err
				}
				asked = append(asked, len(h.parts))
				asks = append(asks, segments.Ask{ID: id, N: int(ref.N), Holders: row.holders})
			}
			h.parts = append(h.parts, part)
		}
	}
	if len(asks) == 0 {
		return nil
	}
	surveys, err := h.v.segments.Survey(h.ctx, asks)
	if err != nil {
		return err
	}
	for i, at := range asked {
		part := &h.parts[at]
		part.gone = len(surveys[i].Stored()) < max(1, int(part.ref.K))
		part.sure = surveys[i].All
	}
	return nil
}

// errGone: the members have too little of a part of an old catalogue.
var errGone = errors.New("no longer kept")

// each calls fn with each part that a head names, once, and whether it is of
// the newest head; err says why it could not be read.
func (h *history) each(fn func(part *pastPart, plain *vaultv1.CataloguePart, err error) error) error {
	for i := range h.parts {
		part := &h.parts[i]
		plain, err := h.read(part)
		if h.ctx.Err() != nil {
			return context.Cause(h.ctx)
		}
		if err := fn(part, plain, err); err != nil {
			return err
		}
	}
	return nil
}

func (h *history) read(part *pastPart) (*vaultv1.CataloguePart, error) {
	plain := part.plain
	if plain == nil {
		if part.gone {
			return nil, errGone
		}
		var err error
		if plain, err = h.v.fetchPart(h.ctx, part.ref); err != nil {
			return nil, err
		}
	}
	return parsePart(plain)
}

// AllSnapshots returns, oldest first, the snapshots of all heads whose
// catalogue can still be read: holders keep it for the floor at least. What the
// newest head does without is marked as forgotten; Find opens it all the same.
func (v *Vault) AllSnapshots(ctx context.Context) ([]HistoricSnapshot, error) {
	current, err := v.Snapshots(ctx)
	if err != nil {
		return nil, err
	}
	now := v.readFrom()
	var all []HistoricSnapshot
	seen := map[SnapshotID]bool{}
	for _, s := range current {
		seen[s.ID] = true
		all = append(all, HistoricSnapshot{Snapshot: s, Head: now.Seq, HeadCreated: now.Created, head: now.ID})
	}
	h, err := v.history(ctx)
	if err != nil {
		return nil, err
	}
	inPart := map[SnapshotID][]storage.SegmentID{}    // parts that have a snapshot
	forgotten := map[SnapshotID][]storage.SegmentID{} // parts that forget it
	var past []Snapshot
	err = h.each(func(part *pastPart, plain *vaultv1.CataloguePart, err error) error {
		if err != nil {
			v.log.Info("part of an older catalogue cannot be read", "err", err)
			return nil
		}
		id := storage.SegmentID(part.ref.Segment)
		for _, f := range plain.Forgotten {
			forgotten[SnapshotID(f)] = append(forgotten[SnapshotID(f)], id)
		}
		for _, e := range plain.Snapshots {
			snapshot := snapshotIDOf(e.Record)
			if seen[snapshot] {
				continue
			}
			if inPart[snapshot] = append(inPart[snapshot], id); len(inPart[snapshot]) > 1 {
				continue
			}
			// Who took the device over may have made records that nobody can open.
			if s, err := v.openSnapshot(ctx, e.Record); err == nil {
				past = append(past, s)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, s := range past {
		if head := h.newestWith(inPart[s.ID], forgotten[s.ID]); !head.IsZero() {
			all = append(all, HistoricSnapshot{s, head.Seq, head.Created, true, head.ID})
		}
	}
	slices.SortStableFunc(all, func(a, b HistoricSnapshot) int { return a.Created.Compare(b.Created) })
	return all, nil
}

// newestWith returns the newest head that names one of some parts and none of
// others.
func (h *history) newestWith(some, none []storage.SegmentID) storage.SignedHead {
	names := func(head *pastHead, ids []storage.SegmentID) bool {
		return slices.ContainsFunc(head.parts, func(ref *vaultv1.PartRef) bool {
			return slices.Contains(ids, storage.SegmentID(ref.Segment))
		})
	}
	for i := range h.heads {
		if head := &h.heads[i]; names(head, some) && !names(head, none) {
			return head.head
		}
	}
	return storage.SignedHead{}
}

// Info says what the head that this vault is read from is about.
func (v *Vault) Info(ctx context.Context) (HeadInfo, error) {
	if err := v.sync(ctx); err != nil {
		return HeadInfo{}, err
	}
	return v.DescribeHead(v.readFrom())
}

// DescribeHead says what a head of this vault is about. The error is
// storage.ErrCorrupt when it cannot be opened.
func (v *Vault) DescribeHead(head storage.SignedHead) (HeadInfo, error) {
	if head.IsZero() {
		return HeadInfo{}, nil
	}
	state, err := openHeadState(v.secrets, head.Sealed)
	if err != nil {
		return HeadInfo{}, err
	}
	info := HeadInfo{Number: head.Seq, Epoch: head.Epoch, Created: head.Created, Signer: head.Signer.String(), Snapshots: state.Snapshots}
	if state.Newest > 0 {
		info.Newest = time.Unix(0, state.Newest)
	}
	return info, nil
}
