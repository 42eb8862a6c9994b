package batch_test

import (
	"testing"

	"gotong/tasks/batch"
)

func TestHalt(t *testing.T) {
	for text, met := range map[string]map[[3]int]bool{ // total, succeeded, failed
		"never":         {{10, 0, 10}: false},
		"0":             {{10, 0, 10}: false},
		"1":             {{10, 3, 0}: false, {10, 3, 1}: true},
		"2":             {{10, 3, 0}: false, {10, 3, 1}: true},
		"20%":           {{10, 8, 1}: false, {10, 0, 2}: true},
		"now,success=2": {{10, 1, 9}: false, {10, 2, 0}: true},
		"soon,done=50%": {{11, 3, 2}: false, {11, 3, 3}: true},
		"soon,fail=1%":  {{10, 3, 0}: false, {10, 3, 1}: true},
	} {
		h, err := batch.ParseHalt(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		for counts, want := range met {
			if got := h.Met(counts[0], counts[1], counts[2]); got != want {
				t.Errorf("%s with %v: %v", text, counts, got)
			}
		}
		if again, err := batch.ParseHalt(h.String()); err != nil || again != h {
			t.Errorf("%s came back as %+v, %v", h, again, err)
		}
	}
	for _, text := range []string{"now", "later,fail=1", "now,fail", "now,fail=0", "now,fail=-1%", "now,lost=1", "now,fail=101%", "now,fail=NaN%"} {
		if h, err := batch.ParseHalt(text); err == nil {
			t.Errorf("%s is %+v", text, h)
		}
	}
}
