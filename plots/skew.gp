# SPDX-License-Identifier: Apache-2.0
# Time, or bandwidth, against skew: a panel per transport, a colour per top-k, models as lines.
ep_panel_h = 230
ep_top = ep_head + 21 * (|ep_series| + |ep_models|) + 40
ep_bottom = ep_top + ep_panel_h
ep_step = ep_panel_h + 44
ep_h = ep_bottom + (|ep_panel| - 1) * ep_step + 142
eval ep_open
file = ep_name.'.tsv'
set xrange [0.5:|ep_skew| + 0.5]
set yrange [0:1.06 * ep_y_most] # of all panels
set multiplot
do for [p = 1:|ep_panel|] {
    eval ep_place
    set label 200 ep_panel[p] at screen sx(10),sy(ep_top - 18) left font ep_font.',13'
    last = p == |ep_panel|
    set xtics () offset 0,0.2
    do for [j = 1:|ep_skew|] {
        if (last) { set xtics add (ep_skew[j] j) rotate by 40 right font ep_font.',14' } else { set xtics add ('' j) }
    }
    if (last) { set label 201 ep_x_label at screen sx(ep_w / 2),sy(ep_h - 12) center font ep_font.',14' }
    if (p == 1) { set key on at screen sx(4),sy(ep_head) top left } else { set key off; unset for [j = 1:150] label j }
    here(i, x) = column('panel') == p && column('series') == i ? x : NaN
    shift(i) = (i - (|ep_series| + 1) / 2.0) * 0.14
    place(i) = here(i, column('skew_idx')) + shift(i)
    plot for [m = 1:|ep_models|] for [i = 1:|ep_series|] file using (place(i)):(column(ep_model_column[m]) * ep_y_scale) with lines lc i lw 2 dt m notitle, \
         for [m = 1:|ep_models|] for [i = 1:|ep_series|] file using (place(i) - 0.12):(column(ep_model_column[m]) * ep_y_scale):(0.24):(0) with vectors nohead lc i lw 2.6 dt 1 notitle, \
         for [i = 1:|ep_series|] file using (place(i)):(column(ep_low_column) * ep_y_scale):(0):(column(ep_high_column) * ep_y_scale - column(ep_low_column) * ep_y_scale) with vectors heads size screen 0.009,90 lc i lw 1.4 dt 1 notitle, \
         for [i = 1:|ep_series|] file using (place(i)):(column(ep_y_column) * ep_y_scale) with points lt i notitle, \
         for [i = 1:|ep_series|] NaN with points lt i ps 1 title ep_series[i], \
         for [m = 1:|ep_models|] NaN with lines lc rgb '#333333' lw 2 dt m title ep_models[m]
    ep_top = ep_top + ep_step
    ep_bottom = ep_bottom + ep_step
}
unset multiplot
