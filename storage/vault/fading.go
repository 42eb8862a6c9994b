package vault

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"go.etcd.io/bbolt"

	"gotong/storage"
	"gotong/storage/segments"
)

// A vault that goes on from an older head needs segments that were deleted after
// that head: they are in the trash of holders and go when the floor has passed.
// A prune copies them into new segments, and until then nothing new counts on
// them.

// rescueName is the file that says that the vault goes on from an older head and
// that not all it needs is known to be safe from the trash being emptied.
const rescueName = "rescue"

// Rescue copies what the vault needs and holders have only in their trash, after
// it was taken over at an older head. The node calls it from time to time; when
// there is nothing to rescue it costs a look at the disk. Errors are those of
// Prune; a prune that runs already does the same.
func (v *Vault) Rescue(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(v.dir, rescueName)); err != nil {
		return nil //nolint:nilerr // there is nothing to rescue
	}
	result, err := v.Prune(ctx, PruneOptions{MaxWaste: 1})
	if errors.Is(err, ErrBusy) {
		return nil
	}
	if result.Rescued > 0 {
		v.log.Info("segments that had been deleted were stored anew", "segments", result.Rescued)
	}
	return err
}

// findFading asks holders about all that is needed, marks what is only in the
// trash, and reports whether there is any.
func (p *prune) findFading(needed *numberSet) (any bool, err error) {
	parts, err := p.v.index.parts()
	if err != nil {
		return false, err
	}
	rows := make([]segmentRow, 0, len(parts))
	for _, part := range parts {
		rows = append(rows, part.row)
	}
	fadingParts, err := p.askFading(rows)
	if err != nil {
		return false, err
	}
	rows = rows[:0]
	for number := range needed.all() {
		row, err := p.v.index.segment(number)
		if err != nil {
			return false, err
		}
		if rows = append(rows, row); len(rows) == surveyedAtOnce {
			if err := p.noteFading(rows); err != nil {
				return false, err
			}
			rows = rows[:0]
		}
	}
	if err := p.noteFading(rows); err != nil {
		return false, err
	}
	return len(fadingParts) > 0 || p.fading.count() > 0, nil
}

func (p *prune) noteFading(rows []segmentRow) error {
	fading, err := p.askFading(rows)
	if err != nil || len(fading) == 0 {
		return err
	}
	for _, row := range fading {
		p.fading.add(row.number)
	}
	if p.o.DryRun {
		return nil
	}
	return p.v.index.update(func(tx *bbolt.Tx) error {
		for _, row := range fading {
			if err := flagSegment(tx, row.number, rowFading, 0); err != nil {
				return err
			}
		}
		return nil
	})
}

// askFading returns the segments of which too few shards are stored and some
// are in the trash. The word of one member alone moves nothing that is stored.
func (p *prune) askFading(rows []segmentRow) (fading []segmentRow, err error) {
	if len(rows) == 0 {
		return nil, nil
	}
	asks := make([]segments.Ask, len(rows))
	for i, row := range rows {
		asks[i] = segments.Ask{ID: row.id, N: int(row.n), Holders: row.holders}
	}
	answers, err := p.v.segments.Survey(p.ctx, asks)
	if err != nil {
		return nil, err
	}
	for i := range answers {
		stored, trash := count(&answers[i], storage.ShardStored), count(&answers[i], storage.ShardTrash)
		p.unsure = p.unsure || stored < int(rows[i].n) && !answers[i].All
		if stored < max(1, int(rows[i].k)) && trash > 0 {
			fading = append(fading, rows[i])
		}
	}
	return fading, nil
}

// count returns of how many shards somebody says that.
func count(answer *segments.Survey, state storage.ShardState) (n int) {
	for _, copies := range answer.Shards {
		if slices.ContainsFunc(copies, func(c segments.Copy) bool { return c.State == state }) {
			n++
		}
	}
	return n
}
