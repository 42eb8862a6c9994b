package sandbox

import (
	"fmt"

	"golang.org/x/sys/cpu"
)

// processorFeatures describes what compiled code may rely on. Code moves between
// machines only with a disk that does.
func processorFeatures() string { return fmt.Sprintf("%+v %+v", cpu.X86, cpu.ARM64) }
