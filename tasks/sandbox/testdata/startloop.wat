;; A module that loops before its _start is ever called.
(module
  (func $loop (loop $again (br $again)))
  (start $loop)
  (func (export "_start")))
