package benchmarks

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// The works of BenchmarkNights.
const (
	workNight   = "backup of one night's changes"
	workNewest  = "restore of the newest snapshot"
	nightsEach  = 20 // backups before a restore
	nightShare  = 25 // one of so many files changes in a night
	nightSeed   = 40
	nightFolder = "nights%d"
)

// BenchmarkNights backs up a tree of which a part changes between two backups,
// many times, and restores the newest snapshot: its files lie in as many backups
// as there were.
func BenchmarkNights(b *testing.B) {
	t := run.results.newTable(fmt.Sprintf("Tree of %d source-like files, %d backups with one of %d files changed before each, %s on %d holders",
		run.settings.Files, nightsEach, nightShare, redundancy, holders), nil)
	us, all := archivers(b, t)
	t.note("The sampled memory and CPU seconds are of the backup, or restore, of the row. Restores write all of the tree.")
	trial := &trial{table: t, us: us, all: all, place: tempDir(b)}
	repetition := 0
	for b.Loop() {
		repetition++
		if err := trial.nights(b.Context(), repetition); err != nil {
			b.Fatal(err)
		}
	}
	t.report(b)
}

// nights does one repetition. Copies are not asked: they know no snapshots.
func (t *trial) nights(ctx context.Context, repetition int) error {
	source := filepath.Join(t.place, fmt.Sprintf(nightFolder, repetition))
	if err := writeSources(source, byte(nightSeed+repetition), run.settings.Files); err != nil {
		return err
	}
	random := rand.New(rand.NewChaCha8([32]byte{nightSeed, byte(repetition)}))
	for night := range nightsEach + 1 {
		if night > 0 {
			if err := changeSome(source, random); err != nil {
				return err
			}
		}
		for i := range t.all {
			a := t.all[(i+night+repetition)%len(t.all)]
			if _, copies := a.(*copier); copies {
				continue
			}
			if night == 0 {
				if err := a.backup(ctx, source); err != nil {
					return err
				}
			} else if _, err := t.metered(ctx, workNight, a, func() error { return a.backup(ctx, source) }); err != nil {
				return err
			}
		}
	}
	for i := range t.all {
		a := t.all[(i+repetition)%len(t.all)]
		if _, copies := a.(*copier); copies {
			continue
		}
		if _, err := t.restored(ctx, workNewest, a, source); err != nil {
			return err
		}
	}
	return nil
}

// changeSome writes some of the files below dir anew, in place and with as many
// bytes.
func changeSome(dir string, random *rand.Rand) error {
	words := vocabulary(random)
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || random.IntN(nightShare) > 0 {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(path, sourceText(random, words, int(info.Size())), 0o644)
	})
}
