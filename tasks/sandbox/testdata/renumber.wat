;; A module that asks for a file descriptor so high that the table of
;; descriptors would take gigabytes.
(module
  (import "wasi_snapshot_preview1" "path_open" (func $path_open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_renumber" (func $fd_renumber (param i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "out")
  (func (export "_start")
    (if (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 3) (i32.const 2)
        (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 16)) (then unreachable))
    (drop (call $fd_renumber (i32.load (i32.const 16)) (i32.const 0x7fffffff)))))
