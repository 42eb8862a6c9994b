package node

import (
	controlv1 "gotong/proto/control/v1"
	"gotong/tasks/rules"
)

// donating is what the donor's rules allow now, for status.
func (p *Peer) donating() *controlv1.Donating {
	s := p.work.donor.latest.Load()
	st := p.work.worker.Status()
	out := &controlv1.Donating{
		Allowed: uint32(s.decision.Slots), Slots: uint32(s.rules.Slots), Facts: donateFacts(s.rules, s),
		SinceUnixMilli: s.since.UnixMilli(), Running: uint32(max(0, st.Busy-st.Held)), Held: uint32(st.Held),
		Withdrawn: uint64(st.Counts.Withdrawn), HeldTotal: uint64(st.Counts.Held), ResumedTotal: uint64(st.Counts.Resumed),
		HoldSeconds: uint64(s.hold.Seconds()),
	}
	if st.Held > 0 {
		out.HeldSinceUnixMilli = st.HeldSince.UnixMilli()
	}
	for _, r := range s.decision.Reasons {
		out.Reasons = append(out.Reasons, &controlv1.DonateReason{Rule: r.Rule, Slots: uint32(max(0, r.Slots)), Text: validText(r.Text)})
	}
	if pause := s.facts.Pause; pause != nil {
		out.Pause = &controlv1.DonatePause{By: pause.By, SinceUnix: pause.Since.Unix()}
		if !pause.Until.IsZero() {
			out.Pause.UntilUnix = pause.Until.Unix()
		}
	}
	return out
}

func donateFacts(r rules.Rules, s *standing) *controlv1.DonateFacts {
	f := s.facts
	out := &controlv1.DonateFacts{
		AtUnix: s.at.Unix(), HasUser: !f.Input.NoUser, InputKnown: f.Input.Known, IdleSeconds: f.Input.Idle.Seconds(), InputSource: f.Input.Source,
		LoadKnown: f.Load.Known, LoadCores: f.Load.Cores, Cores: uint32(r.Cores),
		PowerKnown: f.Power.Known, OnBattery: f.Power.Battery, Power: f.Power.Detail,
		MemoryKnown: f.Memory.Known, MemoryTotal: uint64(f.Memory.Total), MemoryAvailable: uint64(f.Memory.Available), MemoryGuests: uint64(max(0, f.Memory.Guests)),
		DiskKnown: f.Disk.Known, DiskFree: uint64(f.Disk.Free),
	}
	if !f.Input.Known {
		out.InputSource = f.Input.Why
	}
	for _, name := range f.Exclusive[:min(len(f.Exclusive), maxProgramFacts)] {
		out.Exclusive = append(out.Exclusive, validText(name))
	}
	out.InputSource, out.Power = validText(out.InputSource), validText(out.Power)
	return out
}
