package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	vaultv1 "gotong/proto/vault/v1"
	"gotong/storage"
	"gotong/storage/seal"
	"gotong/storage/vault"
)

// SampleFile is a file that was drawn from a snapshot.
type SampleFile struct {
	Entry Entry
	node  *vaultv1.Node
}

// Sample is files drawn from a snapshot.
type Sample struct {
	Snapshot vault.Snapshot
	Files    []SampleFile // by path
}

// DrawSample draws up to n regular files of a snapshot: half of them with the
// same chance for each file, so that many small ones are hit, the other half
// with the chance of each byte, so that the large ones are. The same seed draws
// the same. Memory is that of the sample.
func DrawSample(ctx context.Context, v *vault.Vault, name string, n int, seed uint64) (Sample, error) {
	t, err := openTree(ctx, v, name)
	if err != nil {
		return Sample{}, err
	}
	defer t.reader.Close()
	random := rand.New(rand.NewPCG(seed, 0))
	byFile, byByte := reservoir{size: (n + 1) / 2}, reservoir{size: n / 2}
	root := &vaultv1.Node{Type: vaultv1.Node_DIRECTORY, Content: t.snapshot.Root.Proto()}
	err = walkNodes(t.reader, root, "/", func(at string, node *vaultv1.Node) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if node.Type == vaultv1.Node_FILE {
			file := SampleFile{entryOf(at, node), node}
			// Each file has an exponential waiting time with its weight as the
			// rate; the first to come are the sample.
			byFile.offer(random.ExpFloat64(), file)
			byByte.offer(random.ExpFloat64()/math.Max(float64(node.Content.GetSize()), 1e-9), file)
		}
		return nil
	})
	if err != nil {
		return Sample{}, err
	}
	out := Sample{Snapshot: t.snapshot}
	for _, drawn := range append(byFile.kept, byByte.kept...) {
		out.Files = append(out.Files, drawn.file)
	}
	slices.SortFunc(out.Files, func(a, b SampleFile) int { return cmp.Compare(a.Entry.Path, b.Entry.Path) })
	out.Files = slices.CompactFunc(out.Files, func(a, b SampleFile) bool { return a.Entry.Path == b.Entry.Path })
	return out, nil
}

// reservoir keeps the files with the least waiting times.
type reservoir struct {
	size int
	kept []drawnFile // by rising time
}

type drawnFile struct {
	time float64
	file SampleFile
}

func (r *reservoir) offer(time float64, file SampleFile) {
	if r.size == 0 || len(r.kept) == r.size && time >= r.kept[r.size-1].time {
		return
	}
	at, _ := slices.BinarySearchFunc(r.kept, time, func(d drawnFile, t float64) int { return cmp.Compare(d.time, t) })
	r.kept = slices.Insert(r.kept[:min(len(r.kept), r.size-1)], min(at, r.size-1), drawnFile{time, file})
}

// SampleReport says how a sample came back.
type SampleReport struct {
	Files, Bytes uint64 // that came back as the snapshot has them
	Failed       []SampleFailure
	Duration     time.Duration
}

// SampleFailure is a file that did not come back as it should.
type SampleFailure struct {
	Path string
	Err  error
}

// RestoreSample restores the files of a sample one by one into the directory
// scratch, reads each again from there, compares it with the hashes of the
// snapshot, and removes it. v may be another device's vault of the same id, such
// as one with an empty index. The error is that of ctx or of scratch; files that
// cannot be had are in the report.
func RestoreSample(ctx context.Context, v *vault.Vault, sample Sample, scratch string) (SampleReport, error) {
	began := time.Now()
	var report SampleReport
	reader, err := v.NewReader(ctx)
	if err != nil {
		return report, err
	}
	defer reader.Close()
	for _, file := range sample.Files {
		err := proveFile(ctx, reader, file.node, scratch)
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		if err != nil {
			report.Failed = append(report.Failed, SampleFailure{file.Entry.Path, err})
			continue
		}
		report.Files++
		report.Bytes += file.Entry.Size
	}
	report.Duration = time.Since(began)
	return report, nil
}

// proveFile restores one file and compares it.
func proveFile(ctx context.Context, reader *vault.Reader, node *vaultv1.Node, scratch string) (err error) {
	f, err := os.CreateTemp(scratch, "drill-")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrTarget, err)
	}
	defer func() {
		_ = f.Close() // only read by now
		if removed := os.Remove(f.Name()); err == nil {
			err = removed
		}
	}()
	content, err := vault.RefOf(node.Content)
	if err != nil {
		return err
	}
	err = eachLeaf(ctx, reader, content, nil, func(_ uint64, read func() ([]byte, error)) error {
		plain, err := read()
		if err == nil {
			_, err = f.Write(plain)
		}
		return err
	})
	if err != nil {
		return err
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	return compareContent(reader, content, f, filepath.Base(f.Name()))
}

// compareContent reads a stream and compares it with an object, blob by blob.
func compareContent(reader *vault.Reader, content vault.Ref, f io.Reader, name string) error {
	var buf []byte
	err := reader.Leaves(content, func(leaf vault.Ref) error {
		if uint64(cap(buf)) < leaf.Size {
			buf = make([]byte, leaf.Size)
		}
		buf = buf[:leaf.Size]
		if _, err := io.ReadFull(f, buf); err != nil {
			return fmt.Errorf("%w: %s is too short: %w", storage.ErrCorrupt, name, err)
		}
		if seal.Hash(buf) != leaf.Hash {
			return fmt.Errorf("%w: %s does not have the hash of the snapshot", storage.ErrCorrupt, name)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n, err := io.CopyN(io.Discard, f, 1); n != 0 || err != io.EOF {
		return fmt.Errorf("%w: %s is too long", storage.ErrCorrupt, name)
	}
	return nil
}
