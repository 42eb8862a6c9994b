package cli

import (
	"strings"
	"testing"
	"time"

	controlv1 "gotong/proto/control/v1"
)

// outside is what members say of this peer: y and n, who can dial it and cannot;
// and by how much their clocks are ahead.
func outside(dials string, ahead ...time.Duration) (views []*controlv1.OutsideView) {
	for i := range max(len(dials), len(ahead)) {
		v := &controlv1.OutsideView{Name: string(rune('a' + i))}
		if i < len(dials) && dials[i] != '?' {
			v.Dialled, v.Dialable = true, dials[i] == 'y'
		}
		if i < len(ahead) {
			v.HasClock, v.ClockAheadMilli = true, ahead[i].Milliseconds()
		}
		views = append(views, v)
	}
	return views
}

func TestDoctorReach(t *testing.T) {
	for _, test := range []struct {
		dials    string
		answers  bool // here
		ok       bool
		required bool
		why      string
	}{
		{"", true, true, true, "no member has tried"},
		{"??", true, true, true, "no member has tried"},
		{"yy", true, true, true, "2 members dialled it"},
		{"y?", true, true, true, "1 member dialled it"},
		{"yn", true, false, false, "1 of 2 members cannot dial it: b"},
		{"nn?", true, false, false, "2 of 2 members cannot dial it: a, b"},
		{"nn", false, false, true, "refused"},
	} {
		d := &doctor{findings: []finding{{name: "port", ok: test.answers, required: true, why: "refused"}}}
		d.reach(outside(test.dials), "0.0.0.0:7000")
		if f := d.findings[0]; f.ok != test.ok || f.required != test.required || !strings.Contains(f.why, test.why) {
			t.Errorf("%q: %+v", test.dials, f)
		}
	}
}

func TestDoctorClocks(t *testing.T) {
	const s = time.Second
	for _, test := range []struct {
		ahead []time.Duration
		ok    bool
		why   string
	}{
		{nil, true, "fine"},
		{[]time.Duration{s}, true, "within 1s of the median of 1 member"},
		{[]time.Duration{0, 0, 900 * s}, true, "within 10ms of the median of 3 members"}, // one is wrong, or lies
		{[]time.Duration{7 * s, 9 * s}, false, "8s behind the median of 2 members"},
		{[]time.Duration{-90 * s, -60 * s, -70 * s}, false, "1m10s ahead of the median of 3 members"},
	} {
		d := &doctor{findings: []finding{{name: "clock", ok: true, why: "fine"}}}
		d.clocks(outside("", test.ahead...))
		if f := d.findings[0]; f.ok != test.ok || !strings.Contains(f.why, test.why) {
			t.Errorf("%v: %+v", test.ahead, f)
		}
	}
}
