package vault

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.etcd.io/bbolt"

	"gotong/grid/disk"
	"gotong/storage"
	"gotong/storage/seal"
)

// DefaultMaxWaste is the share of a vault that may be of no use before a prune
// copies what is of use out of its segments.
const DefaultMaxWaste = 0.10

// safeAge is how long segments are left alone that no snapshot ever needed: an
// interrupted backup goes on with them.
const safeAge = 24 * time.Hour

// Small packs are put together when there are many.
const (
	smallPackBytes = 1 << 20
	maxSmallPacks  = 32
)

// repackedAtOnce is how many segments are copied before a head says so; it
// bounds what is kept in memory of them.
const repackedAtOnce = 32

// ErrUnreadable says that the lists or listings of a snapshot cannot be read, so
// nobody knows what it needs.
var ErrUnreadable = errors.New("snapshot cannot be read")

// PruneOptions say what a prune does.
type PruneOptions struct {
	// MaxWaste is the share of the stored bytes that may be of no use, 0 to 1;
	// beyond it segments are copied. 1 copies nothing.
	MaxWaste float64
	// DryRun finds out what would be done and changes nothing.
	DryRun bool
	// Progress is called now and then, in one goroutine at a time; nil: not.
	Progress func(PruneProgress)

	safeAge time.Duration // 0: the constant
}

// PruneProgress says how far a prune is.
type PruneProgress struct {
	Step  string // "reading snapshots", "copying", "deleting"
	Done  uint64 // of Total, where that is known: snapshots, segments
	Total uint64
}

// PruneResult says what a prune did, or would do.
type PruneResult struct {
	Snapshots uint64 // that stay
	Segments  uint64 // that there were
	Dropped   uint64 // of them, that nothing needed; those copied are not counted
	Repacked  uint64 // of them, whose blobs that are of use were copied
	Stored    uint64 // new ones
	Orphans   uint64 // unknown ones that holders had
	Fading    uint64 // of those that there were, that are only in the trash of holders
	Rescued   uint64 // of those copied, that were
	// Bytes of segments, before coding: all before, of no use before and after.
	Bytes, Waste, WasteLeft uint64
	Freed                   uint64 // Bytes minus what there is afterwards; of a dry run without the padding of new ones
	// Deletions says what is not deleted everywhere yet.
	Deletions Deletions
}

// Prune drops the segments that no snapshot needs, copies what is of use out of
// those that hold little of it, and writes the catalogue anew without them. The
// head comes first; what is superseded is deleted by signed batches once other
// peers have that head, and stays in the trash of holders for the floor. A
// backup may run meanwhile: what it counts on is left for the next time.
//
// It has to read the listings of all snapshots, so the read key is needed:
// seal.ErrNoReadKey. Other errors: ErrMayNotDelete, ErrNewerHead, ErrBusy when
// another prune runs, ErrUnreadable with the snapshot.
func (v *Vault) Prune(ctx context.Context, o PruneOptions) (PruneResult, error) {
	if err := v.mayDelete(); err != nil {
		return PruneResult{}, err
	}
	if !v.readSecrets(ctx).CanRead() {
		return PruneResult{}, fmt.Errorf("a device without the read key does not know what snapshots need: %w", seal.ErrNoReadKey)
	}
	select {
	case v.pruning <- struct{}{}:
		defer func() { <-v.pruning }()
	default:
		return PruneResult{}, fmt.Errorf("%w: a prune is running", ErrBusy)
	}
	if err := v.sync(ctx); err != nil {
		return PruneResult{}, err
	}
	if err := v.Outdated(ctx); err != nil {
		return PruneResult{}, err
	}
	if o.safeAge == 0 {
		o.safeAge = safeAge
	}
	if o.Progress == nil {
		o.Progress = func(PruneProgress) {}
	}
	p := &prune{v: v, ctx: ctx, o: o}
	err := p.run()
	if err != nil || o.DryRun {
		return p.result, err
	}
	if !p.unsure && p.result.Fading == p.result.Rescued {
		if err := disk.Remove(filepath.Join(v.dir, rescueName)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return p.result, err
		}
	}
	o.Progress(PruneProgress{Step: "deleting"})
	if err := v.SendDeletions(ctx); err != nil {
		v.log.Warn("what was pruned is not deleted yet", "err", err)
	}
	p.result.Deletions, err = v.PendingDeletions()
	return p.result, err
}

// prune is one run.
type prune struct {
	v      *Vault
	ctx    context.Context
	o      PruneOptions
	result PruneResult

	unpruned uint32 // count when it began
	entries  []entry
	walked   map[SnapshotID]bool
	walk     *walk
	rows     []segmentRow // that may be dropped or copied, without holders
	useless  numberSet    // of them, those that hold nothing of use
	fading   numberSet    // of them, those that are only in the trash
	unsure   bool         // somebody did not say what is in the trash
}

func (p *prune) run() error {
	orphans, err := p.v.findOrphans(p.ctx, p.o.safeAge)
	if err != nil {
		return err
	}
	p.result.Orphans = uint64(len(orphans))
	todo, err := p.begin()
	if err != nil {
		return err
	}
	p.result.Fading = uint64(p.fading.count())
	if !todo {
		if len(orphans) == 0 || p.o.DryRun {
			return nil
		}
		return p.publish(change{orphans: orphans})
	}
	if err := p.look(); err != nil {
		return err
	}
	defer p.walk.close()
	repack := p.choose()
	p.result.Dropped = uint64(p.useless.count())
	p.result.Repacked = uint64(len(repack))
	if p.o.DryRun {
		p.result.Freed = p.result.Waste - min(p.result.WasteLeft, p.result.Waste)
		return nil
	}
	defer func() {
		if err := p.v.index.pardon(); err != nil {
			p.v.log.Warn("segments stay condemned until the next start", "err", err)
		}
	}()
	p.result.Dropped, p.result.Repacked = 0, 0
	total := uint64(len(repack))
	for first := true; first || len(repack) > 0; first = false {
		batch := repack[:min(len(repack), repackedAtOnce)]
		repack = repack[len(batch):]
		if !first {
			p.useless, orphans = numberSet{}, nil
		}
		if err := p.round(batch, orphans); err != nil {
			return err
		}
		p.o.Progress(PruneProgress{"copying", total - uint64(len(repack)), total})
	}
	return p.finish()
}

// begin reports whether there is anything to look for: that no segment is
// unneeded or lost and no snapshot was forgotten since the last time is known
// without reading one.
func (p *prune) begin() (todo bool, err error) {
	v := p.v
	if err := v.index.markAge(v.now()); err != nil {
		return false, err
	}
	if p.entries, err = v.index.entries(); err != nil {
		return false, err
	}
	p.result.Snapshots = uint64(len(p.entries))
	var needed numberSet
	for _, e := range p.entries {
		needed.addAll(&e.segments)
	}
	var below uint32
	err = v.index.view(func(tx *bbolt.Tx) error {
		below = olderThan(tx, v.now().Add(-p.o.safeAge))
		p.unpruned = metaNumber(tx, keyUnpruned)
		return nil
	})
	if err != nil {
		return false, err
	}
	todo = p.unpruned > 0
	small := 0
	err = v.index.eachSegmentInBatches(p.ctx, 0, func(row segmentRow) bool {
		p.result.Segments++
		p.result.Bytes += uint64(row.bytes)
		switch {
		case needed.has(row.number):
			switch {
			case row.flags&rowLost != 0:
				todo = true // what was in it may have been stored anew
			case row.bytes <= smallPackBytes:
				small++
			}
		case row.flags&rowOnce == 0 && row.number >= below:
			return true // of an interrupted backup
		default:
			todo = true
		}
		row.holders = nil
		p.rows = append(p.rows, row)
		return true
	})
	if err != nil {
		return false, err
	}
	faded, err := p.findFading(&needed)
	return todo || faded || small > maxSmallPacks, err
}

// look goes through all snapshots.
func (p *prune) look() (err error) {
	if p.walk, err = p.v.newWalk(p.ctx); err != nil {
		return err
	}
	p.walked = map[SnapshotID]bool{}
	for i, e := range p.entries {
		p.o.Progress(PruneProgress{"reading snapshots", uint64(i), uint64(len(p.entries))})
		s, err := p.v.openSnapshot(p.ctx, e.record)
		if err == nil {
			err = p.walk.snapshot(s.Root, &e.segments)
		}
		if err != nil {
			p.walk.close()
			if p.ctx.Err() != nil {
				return context.Cause(p.ctx)
			}
			return fmt.Errorf("%w: %s: %w", ErrUnreadable, e.id.Short(), err)
		}
		p.walked[e.id] = true
	}
	return nil
}

// choose sorts out the segments that hold nothing of use, and returns those to
// copy from, the emptiest first.
func (p *prune) choose() (repack []segmentRow) {
	var dead, total uint64
	var small, fading []segmentRow
	for _, row := range p.rows {
		live := p.walk.bytes[row.number]
		switch {
		case row.flags&rowIndexed == 0:
			// Nobody knows yet what is in it.
		case live == 0:
			p.useless.add(row.number)
			p.result.Waste += uint64(row.bytes)
		case p.fading.has(row.number):
			fading = append(fading, row)
		default:
			total += uint64(row.bytes)
			unused := row.unused(live)
			dead += unused
			if row.flags&rowLost != 0 {
				continue // cannot be copied
			}
			if row.bytes <= smallPackBytes {
				small = append(small, row)
			} else if unused > 0 {
				repack = append(repack, row)
			}
		}
	}
	p.result.Waste += dead
	share := func(r segmentRow) float64 { return float64(r.unused(p.walk.bytes[r.number])) / float64(r.bytes) }
	slices.SortFunc(repack, func(a, b segmentRow) int {
		return cmp.Or(cmp.Compare(share(b), share(a)), cmp.Compare(a.number, b.number))
	})
	n := 0
	if len(small) > maxSmallPacks {
		for _, row := range small {
			unused := row.unused(p.walk.bytes[row.number])
			dead, total = dead-unused, total-unused
		}
	} else {
		repack = append(repack, small...)
		slices.SortStableFunc(repack, func(a, b segmentRow) int { return cmp.Compare(share(b), share(a)) })
		small = nil
	}
	for n < len(repack) && p.o.MaxWaste < 1 && float64(dead) > p.o.MaxWaste*float64(total) {
		unused := repack[n].unused(p.walk.bytes[repack[n].number])
		if unused == 0 {
			break
		}
		dead, total = dead-unused, total-unused
		n++
	}
	p.result.WasteLeft = dead
	return slices.Concat(fading, repack[:n], small)
}

// unused returns the bytes of blobs that nothing refers to, when live bytes are
// of use. Blobs lie before the table of contents.
func (r segmentRow) unused(live uint64) uint64 {
	return uint64(r.tocOffset) - min(live, uint64(r.tocOffset))
}

// round drops what is useless and what it has copied, by one new head.
func (p *prune) round(repack []segmentRow, orphans []storage.SegmentID) error {
	wanted := p.useless.clone()
	for _, row := range repack {
		wanted.add(row.number)
	}
	condemned, err := p.v.condemn(&wanted, p.walked)
	if err != nil {
		return err
	}
	copies := &repacker{v: p.v, ctx: p.ctx, walk: p.walk, to: map[uint32]*numberSet{}}
	for _, row := range repack {
		if !condemned.has(row.number) {
			continue
		}
		switch err := copies.copy(row.number); {
		case errors.Is(err, storage.ErrTooFewShards) && p.ctx.Err() == nil:
			p.v.log.Warn("segment cannot be read now; it is copied by a later prune", "segment", row.id.Short(), "err", err)
			condemned.remove(row.number)
			continue
		case err != nil:
			return fmt.Errorf("copy segment %s: %w", row.id.Short(), err)
		}
		p.result.Repacked++
		if p.fading.has(row.number) {
			p.result.Rescued++
		}
	}
	if err := copies.finish(); err != nil {
		return err
	}
	p.result.Stored += uint64(len(copies.stored))
	p.result.Dropped += uint64(condemned.count()) - uint64(len(copies.to))
	return p.publish(change{
		drop: &condemned, replaced: p.replaced(&condemned, copies.to), orphans: orphans,
		verify: func(tx *bbolt.Tx) error { return allCondemned(tx, &condemned) },
		moved:  copies.moved,
	})
}

// replaced returns the snapshots with the segments that they need after the
// round. Those of one whose blobs were found in others than it lists need them
// as well, all of them: which one does is not known, and it costs nothing.
func (p *prune) replaced(condemned *numberSet, to map[uint32]*numberSet) map[SnapshotID]numberSet {
	out := map[SnapshotID]numberSet{}
	for i := range p.entries {
		e := &p.entries[i]
		segments := e.segments.clone()
		segments.addAll(&p.walk.extra)
		for number := range condemned.all() {
			if !segments.has(number) {
				continue
			}
			segments.remove(number)
			if moved := to[number]; moved != nil {
				segments.addAll(moved)
			}
		}
		e.segments = segments
		out[e.id] = segments
	}
	for number := range condemned.all() {
		p.walk.extra.remove(number)
		if moved := to[number]; moved != nil {
			p.walk.extra.addAll(moved)
		}
	}
	return out
}

// publish makes the new head and hands it out.
func (p *prune) publish(c change) error {
	if err := p.v.publish(p.ctx, p.v.putter(p.ctx), c); err != nil {
		return err
	}
	_, err := p.v.Publish(p.ctx)
	return p.v.publishFailed(err)
}

// finish cleans the index and remembers that there is nothing to look for.
func (p *prune) finish() error {
	if err := p.v.index.sweep(); err != nil {
		return err
	}
	var bytes uint64
	err := p.v.index.eachSegmentInBatches(p.ctx, 0, func(row segmentRow) bool {
		bytes += uint64(row.bytes)
		return true
	})
	if err != nil {
		return err
	}
	p.result.Freed = p.result.Bytes - min(bytes, p.result.Bytes)
	return p.v.index.update(func(tx *bbolt.Tx) error {
		left := binary.BigEndian.AppendUint64(nil, p.result.WasteLeft)
		if err := tx.Bucket(bucketMeta).Put(keyWaste, left); err != nil || metaNumber(tx, keyUnpruned) != p.unpruned {
			return err
		}
		return tx.Bucket(bucketMeta).Delete(keyUnpruned)
	})
}
