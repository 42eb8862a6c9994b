package vault

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"gotong/grid/blake3"
	"gotong/storage"
)

// A batch of segments that nothing needs any more goes through two files in
// deletions/, each durable before the next step:
//
//	NUMBER.held   the ids, before the head that does without them is made. It
//	              counts only when that head came to be: when the newest head
//	              says that a batch of this number was made
//	NUMBER.batch  signed, once that head is with other peers; until every
//	              member has acknowledged it
//
// NUMBER has 16 hex digits.
const (
	heldSuffix  = ".held"
	batchSuffix = ".batch"
	// deletionAge is how long holders keep a batch and tell each other of it, so
	// there is no use in sending it for longer.
	deletionAge = 400 * 24 * time.Hour
	// deletionsSent is how many batches go into one call.
	deletionsSent = storage.MaxDeletionPage / storage.MaxDeletionBytes
)

// deletionQueue is the directory of batches.
type deletionQueue struct {
	dir   string
	files files
}

func (q *deletionQueue) path(number uint64, suffix string) string {
	return filepath.Join(q.dir, fmt.Sprintf("%016x", number)+suffix)
}

// list returns the numbers of the batches with that suffix, rising.
func (q *deletionQueue) list(suffix string) (numbers []uint64, err error) {
	entries, err := os.ReadDir(q.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("deletions: %w", err)
	}
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), suffix)
		number, err := strconv.ParseUint(name, 16, 64)
		if ok && err == nil && len(name) == 16 {
			numbers = append(numbers, number)
		}
	}
	return numbers, nil
}

// hold writes batches of ids, numbered after last, and returns the number of
// the newest; those that an earlier attempt left go away. Nothing is sent
// before a head with that number is there.
func (q *deletionQueue) hold(last uint64, ids []storage.SegmentID) (uint64, error) {
	left, err := q.list(heldSuffix)
	if err != nil {
		return 0, err
	}
	for _, number := range left {
		if number > last {
			if err := q.remove(number, heldSuffix); err != nil {
				return 0, err
			}
		}
	}
	if len(ids) == 0 {
		return last, nil
	}
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return 0, fmt.Errorf("deletions: %w", err)
	}
	for batch := range slices.Chunk(ids, storage.MaxDeletionSegments) {
		last++
		if err := q.files.writeDurable(q.path(last, heldSuffix), encodeHeld(batch)); err != nil {
			return 0, fmt.Errorf("deletions: %w", err)
		}
	}
	return last, nil
}

func (q *deletionQueue) remove(number uint64, suffix string) error {
	if err := os.Remove(q.path(number, suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deletions: %w", err)
	}
	return nil
}

// encodeHeld writes ids, one behind the other, and BLAKE3 of them.
func encodeHeld(ids []storage.SegmentID) []byte {
	b := make([]byte, 0, 32*len(ids)+32)
	for _, id := range ids {
		b = append(b, id[:]...)
	}
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// parseHeld reads what encodeHeld wrote. The error is storage.ErrCorrupt.
func parseHeld(b []byte) ([]storage.SegmentID, error) {
	count := len(b)/32 - 1
	if len(b)%32 != 0 || count < 1 || count > storage.MaxDeletionSegments || blake3.Sum256(b[:32*count]) != [32]byte(b[32*count:]) {
		return nil, fmt.Errorf("%w: held deletions of %d bytes", storage.ErrCorrupt, len(b))
	}
	ids := make([]storage.SegmentID, count)
	for i := range ids {
		ids[i] = storage.SegmentID(b[32*i:])
	}
	return ids, nil
}

// Deletions says what was pruned and is not deleted everywhere yet.
type Deletions struct {
	Held int // batches that wait until the newest head is with other peers
	Sent int // batches that some member has not acknowledged yet
}

// PendingDeletions returns what SendDeletions has still to do.
func (v *Vault) PendingDeletions() (d Deletions, err error) {
	held, err := v.deletions.list(heldSuffix)
	if err != nil {
		return Deletions{}, err
	}
	last, err := v.lastState()
	if err != nil {
		return Deletions{}, err
	}
	for _, number := range held {
		if number <= last.Deletions {
			d.Held++
		}
	}
	sent, err := v.deletions.list(batchSuffix)
	d.Sent = len(sent)
	return d, err
}

// SendDeletions signs the batches whose segments no published head needs, and
// sends all that a member has not acknowledged, the same bytes each time. The
// node calls it after Prune and from time to time. It may run beside anything.
// What members that are away lack is sent the next time; that is no error.
func (v *Vault) SendDeletions(ctx context.Context) error {
	release, err := acquireSlot(ctx, v.deleting)
	if err != nil {
		return err
	}
	defer release()
	if err := v.signHeld(ctx); err != nil {
		return err
	}
	numbers, err := v.deletions.list(batchSuffix)
	if err != nil {
		return err
	}
	for part := range slices.Chunk(numbers, deletionsSent) {
		if err := v.sendBatches(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// signHeld makes signed batches of those that are held, once the newest head of
// this device is published.
func (v *Vault) signHeld(ctx context.Context) error {
	held, err := v.deletions.list(heldSuffix)
	if err != nil || len(held) == 0 {
		return err
	}
	if err := v.mayDelete(); err != nil {
		return err
	}
	last, err := v.lastState()
	if err != nil {
		return err
	}
	if _, err := v.Publish(ctx); err != nil {
		return fmt.Errorf("nothing is deleted before the head is with other peers: %w", err)
	}
	for _, number := range held {
		if number > last.Deletions {
			continue // the head that does without them was never made
		}
		if err := v.signBatch(number); err != nil {
			return err
		}
	}
	return nil
}

func (v *Vault) signBatch(number uint64) error {
	b, err := os.ReadFile(v.deletions.path(number, heldSuffix))
	if err != nil {
		return fmt.Errorf("deletions: %w", err)
	}
	ids, err := parseHeld(b)
	if errors.Is(err, storage.ErrCorrupt) {
		v.log.Warn("a batch of deletions is broken and left out; a later prune finds its segments with the holders", "number", number)
		return v.deletions.remove(number, heldSuffix)
	}
	d, err := storage.SignDeletion(v.config.Node, storage.Deletion{Vault: v.ID(), Owner: v.config.Owner, Number: number,
		Created: v.now(), Grant: v.config.Grant(), Segments: ids})
	if err != nil {
		return err
	}
	if err := v.files.writeDurable(v.deletions.path(number, batchSuffix), d.Raw); err != nil {
		return fmt.Errorf("deletions: %w", err)
	}
	return v.deletions.remove(number, heldSuffix)
}

// sendBatches sends signed batches, and forgets those that all members have.
func (v *Vault) sendBatches(ctx context.Context, numbers []uint64) error {
	var raw [][]byte
	for _, number := range numbers {
		b, err := os.ReadFile(v.deletions.path(number, batchSuffix))
		if err != nil {
			return fmt.Errorf("deletions: %w", err)
		}
		d, err := storage.ParseDeletion(b)
		if err != nil || v.now().Sub(d.Created) > deletionAge {
			v.log.Info("a batch of deletions is not sent any more", "number", number, "err", err)
			if err := v.deletions.remove(number, batchSuffix); err != nil {
				return err
			}
			continue
		}
		raw = append(raw, b)
	}
	if len(raw) == 0 {
		return nil
	}
	acked, silent, err := v.segments.Delete(ctx, raw)
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	if len(acked) == 0 || len(silent) > 0 {
		return nil
	}
	for _, number := range numbers {
		if err := v.deletions.remove(number, batchSuffix); err != nil {
			return err
		}
	}
	return nil
}

// each calls fn with the segments of each batch that is here. One that is being
// signed meanwhile may come twice.
func (q *deletionQueue) each(fn func([]storage.SegmentID)) error {
	for _, kind := range []struct {
		suffix string
		parse  func([]byte) ([]storage.SegmentID, error)
	}{ // in the order in which a batch goes through them
		{heldSuffix, parseHeld},
		{batchSuffix, func(b []byte) ([]storage.SegmentID, error) {
			d, err := storage.ParseKnownDeletion(b)
			return d.Segments, err
		}},
	} {
		numbers, err := q.list(kind.suffix)
		if err != nil {
			return err
		}
		for _, number := range numbers {
			b, err := os.ReadFile(q.path(number, kind.suffix))
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("deletions: %w", err)
			}
			if ids, err := kind.parse(b); err == nil {
				fn(ids)
			}
		}
	}
	return nil
}
