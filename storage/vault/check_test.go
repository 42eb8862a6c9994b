package vault

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func (f *fixture) check(o CheckOptions) CheckReport {
	f.t.Helper()
	report, err := f.v.Check(f.t.Context(), o)
	if err != nil {
		f.t.Fatal(err)
	}
	return report
}

// TestCheckFindsNothingWrong in a vault that was used and pruned.
func TestCheckFindsNothingWrong(t *testing.T) {
	f := newFixture(t)
	if report := f.check(CheckOptions{ReadData: 1}); !report.OK() || report.Segments != 0 {
		t.Errorf("empty vault: %+v", report)
	}
	first := f.tree(someFiles(1, 2, 3)).Snapshot.ID
	f.tree(someFiles(2, 3, 4))
	f.forget(first)
	f.prune(PruneOptions{})
	report := f.check(CheckOptions{ReadData: 1})
	if !report.OK() || report.Healthy != report.Segments || report.Segments < 2 || report.ShardsChecked != 6*report.Segments || report.ShardsBad != 0 {
		t.Errorf("%+v", report)
	}
	if report.BlobsRead != report.Blobs || report.SegmentsRead != report.Segments-1 || report.Blobs < 5 {
		t.Errorf("%+v", report)
	}
	if some := f.check(CheckOptions{ReadData: 0.01}); some.SegmentsRead != 1 {
		t.Errorf("a little: %+v", some)
	}
	if left, err := filepath.Glob(filepath.Join(f.dir, spillName+"*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestCheckFindsWhatIsMissing: each kind of damage is found and said.
func TestCheckFindsWhatIsMissing(t *testing.T) {
	f := newFixture(t)
	f.tree(someFiles(1, 2, 3))
	infos := f.segmentInfos()
	for id, info := range infos {
		data := f.segments.segments[id]
		delete(f.segments.segments, id)
		report := f.check(CheckOptions{})
		if report.OK() || report.Lost != 1 || report.Healthy != report.Segments-1 || report.Count < 2 || !strings.Contains(strings.Join(report.Problems, "\n"), id.Short()) {
			t.Errorf("segment of %d bytes is missing: %+v", info.Bytes, report)
		}
		f.segments.segments[id] = data
	}
	for id, data := range f.segments.segments {
		if len(data) > 500<<10 {
			data[100] ^= 1
			if report := f.check(CheckOptions{}); !report.OK() {
				t.Errorf("holders are believed: %+v", report)
			}
			if report := f.check(CheckOptions{ReadData: 1}); report.OK() || report.Lost != 0 || report.BlobsRead >= report.Blobs {
				t.Errorf("segment %s was altered: %+v", id.Short(), report)
			}
			data[100] ^= 1
		}
	}
}

func TestCheckWithoutTheReadKey(t *testing.T) {
	f := newFixture(t)
	f.tree(someFiles(1, 2, 3))
	f.v.secrets = f.v.secrets.WithoutRead()
	report := f.check(CheckOptions{ReadData: 1})
	if !report.OK() || !report.NoReadKey || report.SegmentsRead == 0 || report.BlobsRead != 0 {
		t.Errorf("%+v", report)
	}
}

func TestStatsCount(t *testing.T) {
	f := newFixture(t)
	f.tree(someFiles(1, 2, 3))
	second := f.tree(someFiles(1, 2, 3, 4)).Snapshot.ID
	s, err := f.v.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Join(f.dir, indexName))
	if err != nil || s.IndexBytes != uint64(info.Size()) {
		t.Errorf("%v", err)
	}
	if s.Snapshots != 2 || s.Blobs < 6 || s.UniqueBytes < 1200<<10 || s.SealedBytes < s.UniqueBytes || s.StoredBytes != s.SegmentBytes*6/4 || s.Waste != 0 || s.IndexBytes == 0 {
		t.Errorf("%+v", s)
	}
	f.forget(second)
	if s, err := f.v.Stats(t.Context()); err != nil || s.Snapshots != 1 || s.Waste < 300<<10 {
		t.Errorf("%+v, %v", s, err)
	}
}
