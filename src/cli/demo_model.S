/* Embeds the demo model; DEMO_MODEL_PATH comes from the build. */
    .section .rodata
    .balign 64
    .global demo_model_begin
    .global demo_model_end
demo_model_begin:
    .incbin DEMO_MODEL_PATH
demo_model_end:
    .byte 0
    .section .note.GNU-stack, "", %progbits
