package vault

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"gotong/grid"
	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
)

// rowsPerPart bounds the segments of a new part of the catalogue, so that a
// first backup of any size makes parts that fit into a segment.
const rowsPerPart = 50_000

// headAnswerWait bounds the wait for peers that are asked for a newer head, from
// the beginning of the session, so there is seldom any wait left. Holders refuse
// a head that contradicts theirs in any case.
const headAnswerWait = 3 * time.Second

// Result says what Commit made.
type Result struct {
	Snapshot Snapshot // with its ID
	Stats    Stats
	// Health is that of all segments that the snapshot needs, its part of the
	// catalogue included; the zero value when no peer has the head.
	Health
	// HeadHolders is how many peers have the new head. When none has, the
	// snapshot exists on this device only until a later Publish.
	HeadHolders int
}

// Commit finishes the session: everything is stored and in the index, the
// catalogue gets its new part, the head is made durable here and then handed
// out. After an error there is no new snapshot, unless a later Begin finds that
// the head was durable already.
func (s *Session) Commit(snapshot Snapshot) (Result, error) {
	defer s.v.release(s)
	defer s.cancel(context.Canceled)
	if err := s.drain(); err != nil {
		return Result{}, err
	}
	if err := s.awaitHeadAnswer(); err != nil {
		return Result{}, err
	}
	plain, err := snapshot.encode()
	if err != nil {
		return Result{}, err
	}
	record, err := s.v.secrets.SealRecord(plain, s.v.config.Recipients...)
	if err != nil {
		return Result{}, err
	}
	snapshot.ID = snapshotIDOf(record)
	if err := s.publish(&vaultv1.SnapshotEntry{Record: record, Segments: s.used.encode()}, snapshot.Created); err != nil {
		return Result{}, err
	}
	holders, err := s.v.Publish(s.ctx)
	switch {
	case errors.Is(err, storage.ErrHeadFork), errors.Is(err, storage.ErrStaleEpoch):
		return Result{}, fmt.Errorf("%w: %w", ErrNewerHead, err)
	case err != nil:
		s.v.log.Warn("head is not with other peers yet", "err", err)
	}
	if err := s.v.index.addHealth(&s.health, &s.used); err != nil {
		return Result{}, err
	}
	result := Result{Snapshot: snapshot, Stats: s.Stats(), Health: s.health.known(), HeadHolders: holders}
	if holders == 0 {
		result.Health = Health{}
	}
	return result, nil
}

// publish stores the new part of the catalogue and makes the head durable.
func (s *Session) publish(entry *vaultv1.SnapshotEntry, created time.Time) error {
	v := s.v
	kept, fresh, next, err := v.index.newParts(entry)
	if err != nil {
		return fmt.Errorf("catalogue: %w", err)
	}
	rows := kept
	for _, part := range fresh {
		row, err := s.storePart(part)
		if err != nil {
			return fmt.Errorf("catalogue: %w", err)
		}
		rows = append(rows, row)
	}
	state := &vaultv1.HeadState{NextNumber: next, Newest: created.UnixNano()}
	if state.Snapshots, err = v.index.countSnapshots(); err != nil {
		return err
	}
	state.Snapshots++
	for _, part := range rows {
		state.Parts = append(state.Parts, refOfPart(part.row))
	}
	head, err := v.appendHead(state)
	if err != nil {
		return err
	}
	return v.index.update(func(tx *bbolt.Tx) error {
		if err := putParts(tx, len(kept), rows); err != nil {
			return err
		}
		if err := addSnapshot(tx, entry); err != nil {
			return err
		}
		return putHead(tx, head, next)
	})
}

func (s *Session) storePart(part *vaultv1.CataloguePart) (partRow, error) {
	plain, err := encodePart(part)
	if err != nil {
		return partRow{}, err
	}
	sealed := sealPart(s.v.secrets, plain)
	put, err := s.put(sealed)
	if err != nil {
		return partRow{}, err
	}
	row := put.row(len(sealed))
	return partRow{refOfPart(row), plain, row}, nil
}

// appendHead signs the next head and makes it durable on this disk.
func (v *Vault) appendHead(state *vaultv1.HeadState) (storage.SignedHead, error) {
	sealed, err := sealHeadState(v.secrets, state)
	if err != nil {
		return storage.SignedHead{}, err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	last := v.heads.newest()
	head, err := storage.SignHead(v.config.Node, storage.Head{
		Vault: v.ID(), Owner: v.config.Owner, Seq: last.Seq + 1, Prev: last.ID,
		Created: time.Now(), Floor: v.config.Floor, Grant: v.config.Grant(), Sealed: sealed,
	})
	if err != nil {
		return storage.SignedHead{}, err
	}
	return head, v.heads.append(head)
}

// Publish hands the heads of this device to other peers, the same bytes each
// time, and returns how many have the newest one. It may be called at any time.
func (v *Vault) Publish(ctx context.Context) (holders int, err error) {
	v.mu.Lock()
	raw := v.heads.raw()
	v.mu.Unlock()
	if len(raw) == 0 {
		return 0, nil
	}
	return v.segments.PublishHeads(ctx, raw)
}

// newParts returns the catalogue as it will be: the parts that stay, those to
// store, and the first segment number that is in none of them.
func (x *index) newParts(entry *vaultv1.SnapshotEntry) (kept []partRow, fresh []*vaultv1.CataloguePart, next uint32, err error) {
	parts, err := x.parts()
	if err != nil {
		return nil, nil, 0, err
	}
	var from uint32
	err = x.view(func(tx *bbolt.Tx) error {
		from, next = metaNumber(tx, keyCatalogued), metaNumber(tx, keyNext)
		return nil
	})
	if err != nil {
		return nil, nil, 0, err
	}
	builders := []*partBuilder{newPartBuilder()}
	err = x.eachSegment(from, func(row segmentRow) error {
		last := builders[len(builders)-1]
		if len(last.part.Segments) == rowsPerPart {
			last = newPartBuilder()
			builders = append(builders, last)
		}
		if row.number < next {
			last.addRow(row)
		}
		return nil
	})
	if err != nil {
		return nil, nil, 0, err
	}
	last := builders[len(builders)-1]
	last.part.Snapshots = append(last.part.Snapshots, entry)
	kept, err = mergeParts(parts, builders)
	for _, b := range builders {
		fresh = append(fresh, &b.part)
	}
	if len(kept)+len(fresh) > maxParts {
		return nil, nil, 0, fmt.Errorf("more than %d parts", maxParts)
	}
	return kept, fresh, next, err
}

// mergeParts moves the newest parts that are not much longer than the first new
// one into it, and returns those that stay.
func mergeParts(parts []partRow, builders []*partBuilder) (kept []partRow, err error) {
	first := builders[0]
	encoded, err := encodePart(&first.part)
	if err != nil {
		return nil, err
	}
	total := len(encoded)
	n := len(parts)
	for n > 0 && total+len(parts[n-1].plain) <= maxPartBytes &&
		(len(parts[n-1].plain) <= 2*total || n+len(builders) > maxParts) {
		n--
		total += len(parts[n].plain)
	}
	merged := newPartBuilder()
	for _, row := range parts[n:] {
		p, err := parsePart(row.plain)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errIndexBroken, err)
		}
		merged.addPart(p)
	}
	merged.addPart(&first.part)
	builders[0] = merged
	return parts[:n], nil
}

func (x *index) countSnapshots() (n uint64, err error) {
	err = x.view(func(tx *bbolt.Tx) error {
		n = uint64(tx.Bucket(bucketSnapshots).Stats().KeyN)
		return nil
	})
	return n, err
}

// lookForNewerHead asks the peers, in the background, whether they know a head
// of this vault that this device does not.
func (v *Vault) lookForNewerHead(ctx context.Context) <-chan error {
	answer := make(chan error, 1)
	own := v.Head()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, headAnswerWait)
		defer cancel()
		found, err := v.segments.FindHeads(ctx, v.config.Owner)
		if err != nil {
			v.log.Info("peers could not be asked for heads", "err", err)
		}
		answer <- newerThan(own, found, v.ID(), v.config.Owner)
	}()
	return answer
}

// newerThan returns ErrNewerHead when one of the found heads of the vault is
// not among those that led to own.
func newerThan(own storage.SignedHead, found []storage.VaultHeads, vault storage.VaultID, owner grid.OwnerID) error {
	for _, heads := range found {
		if heads.Vault != vault || len(heads.Links) == 0 {
			continue
		}
		head, err := storage.ParseHead(heads.Links[len(heads.Links)-1])
		if err != nil || head.Vault != vault || head.Owner != owner {
			continue
		}
		forked := head.Seq == own.Seq && head.Epoch == own.Epoch && head.ID != own.ID
		if !own.IsZero() && head.Epoch > own.Epoch {
			return fmt.Errorf("%w: %w: they have number %d of epoch %d, this device's is %d",
				ErrNewerHead, storage.ErrStaleEpoch, head.Seq, head.Epoch, own.Epoch)
		}
		if own.IsZero() || head.Newer(own) || forked {
			return fmt.Errorf("%w: they have number %d of %s, this device has %d",
				ErrNewerHead, head.Seq, head.Created.UTC().Format(time.RFC3339), own.Seq)
		}
	}
	return nil
}

func (s *Session) awaitHeadAnswer() error {
	select {
	case err := <-s.newerHead:
		return err
	case <-s.ctx.Done():
		return s.err()
	}
}
