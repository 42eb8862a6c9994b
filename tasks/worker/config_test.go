package worker

import (
	"strings"
	"testing"
	"time"

	"gotong/tasks"
)

func TestConfigValidate(t *testing.T) {
	good := Config{Dir: "x"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for want, c := range map[string]Config{
		"no directory":  {},
		"slots":         {Dir: "x", Slots: MaxSlots + 1},
		"queue":         {Dir: "x", Slots: 3, Queue: 2},
		"negative":      {Dir: "x", StoreBytes: -1},
		"memory limit":  {Dir: "x", Limits: tasks.Limits{MemoryBytes: tasks.MaxMemoryBytes + 1}},
		"time limit":    {Dir: "x", Limits: tasks.Limits{Wall: tasks.MaxWall + time.Second}},
		"output files ": {Dir: "x", Limits: tasks.Limits{OutputFiles: -1}},
	} {
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	c := Config{Slots: 3, Limits: tasks.Limits{Wall: time.Second}}.withDefaults()
	limits := tasks.CeilingLimits()
	limits.Wall = time.Second
	if c.Queue != 3*queueSlots || c.Limits != limits || c.StoreBytes != DefaultConfig().StoreBytes || c.Logger == nil {
		t.Errorf("%+v", c)
	}
}
